//! Any command that takes Docker's words (`podman`, `docker`, `nerdctl`), for when no engine's socket answers.
//!
//! Owns: one follower of events, and one attached command a running container, which holds 25 to 35 MB. Promises: the same life as by
//! an API. What a command can't do is refused: numbers of use (`stats`), variables with a newline, folders with a comma.
//! Never: a shell.

mod ask;
mod attached;
mod follow;
mod program;
mod told;

use super::docker::BY_HOOK;
use super::engine::{
    Answer, ConnectionEnd, ContainerFacts, ContainerState, CreateSpec, Engine, EngineInfo,
    HandedOn, HandingOn, ImageFacts, Listed, Progress, Stats,
};
use super::fault::{EngineFault, EngineFaultKind, one_line};
use super::feed::Feed;
use super::podman::BY_CDI;
use super::streams::KEPT;
use super::{command, pause};
use crate::backend::{BoxFuture, CommandOutcome};
use attached::{Last, hand_on};
use follow::Follower;
use lair_supervision::ExitStatus;
use program::{Flavour, Program, keep};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus as Ended, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::{OnceCell, oneshot};

/// Between two looks at a container that is being started.
const LOOK: Duration = Duration::from_millis(40);
/// Longest time without a look at a container whose end is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Bytes of standard error that are held back until it is known whether they are the command's or the container's.
const HELD: usize = 64 << 10;

/// An engine by its command.
#[derive(Clone)]
pub struct Cli(Arc<Inner>);

struct Inner {
    programs: Vec<Program>,
    /// The first that answered: containers are where they were made.
    chosen: OnceCell<One>,
    /// Write ends of containers that are attached to and not started.
    feeds: Mutex<HashMap<String, Attached>>,
}

/// Where its output goes, and who is told of the end of that.
type Attached = (Feed, oneshot::Sender<HandedOn>);

/// The command that is used.
struct One {
    program: Program,
    follower: Follower,
}

impl Cli {
    /// Uses the first of these programs that finds its engine; a program's name says which it is.
    #[must_use]
    pub fn of(programs: &[PathBuf]) -> Self {
        Cli::within(programs, "/".into())
    }

    /// The same, started in this folder, which is made if it is not there.
    #[must_use]
    pub fn within(programs: &[PathBuf], folder: PathBuf) -> Self {
        let program = |path: &PathBuf| Program::new(path, folder.clone());
        Cli(Arc::new(Inner {
            programs: programs.iter().map(program).collect(),
            chosen: OnceCell::new(),
            feeds: Mutex::default(),
        }))
    }

    async fn one(&self) -> Result<&One, EngineFault> {
        let choose = || async {
            let none = "there is no command to run containers by: podman, docker, nerdctl";
            let mut why = EngineFault::new(EngineFaultKind::Unreachable, none);
            for program in &self.0.programs {
                match info_of(program).await {
                    Ok((flavour, _)) => {
                        let program = Program {
                            flavour,
                            ..program.clone()
                        };
                        return Ok(One {
                            follower: Follower::new(program.clone()),
                            program,
                        });
                    }
                    Err(fault) => why = fault,
                }
            }
            Err(why)
        };
        self.0.chosen.get_or_try_init(choose).await
    }

    async fn program(&self) -> Result<&Program, EngineFault> {
        self.one().await.map(|one| &one.program)
    }

    fn feeds(&self) -> std::sync::MutexGuard<'_, HashMap<String, Attached>> {
        self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn facts(&self, id: &str) -> Result<Option<ContainerFacts>, EngineFault> {
        let args = ["container", "inspect", id];
        match self.program().await?.ask(&args).await {
            Ok(answer) => told::container(&told::only(&answer)?).map(Some),
            Err(fault) if fault.kind == EngineFaultKind::NoSuchContainer => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A verb on one container, for which "there is none" and "it does not run" are fine.
    async fn act(&self, args: &[&str]) -> Result<(), EngineFault> {
        match self.program().await?.ask(args).await {
            Err(fault) if !is_over(&fault) => Err(fault),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl One {
    /// Hands an attached command's output on, and tells of the end of both.
    fn hands_on(&self, id: String, child: Child, to: Attached, (held, last): (Vec<u8>, Last)) {
        let (follower, flavour) = (self.follower.clone(), self.program.flavour);
        let (feed, tell) = to;
        tokio::spawn(async move {
            let (feed, ended) = hand_on(child, feed, held, last).await;
            follower.wake(&id);
            let end = end_of(flavour, ended);
            let _ = tell.send(HandedOn { feed, end });
        });
    }
}

/// What the end of an attached command says. Its exit code is the container's, or tells of a fault of its own with one that
/// a container may have, too; Podman's has nobody behind it that could be away.
fn end_of(flavour: Flavour, ended: Option<Ended>) -> ConnectionEnd {
    match ended {
        Some(status) if status.code().is_none() => ConnectionEnd::Broken,
        Some(_) if flavour == Flavour::Podman => ConnectionEnd::Whole,
        _ => ConnectionEnd::Unsure,
    }
}

fn is_over(fault: &EngineFault) -> bool {
    let says = |words: &str| fault.reason.contains(words);
    fault.kind == EngineFaultKind::NoSuchContainer
        || says("is not running")
        || says("can only kill running containers")
        || says("container state improper")
        || says("is not paused")
        || says("not paused")
}

/// What it is, whatever its name says: `docker` may be a name of Podman's, which would leave a request for GPUs out.
async fn info_of(program: &Program) -> Result<(Flavour, EngineInfo), EngineFault> {
    // Docker's fails where the daemon is away, and prints what it knows all the same.
    let done = program
        .run(&["info", "--format", "{{json .}}"], None)
        .await?;
    let out = match done.status.success() || !done.out.trim_ascii().is_empty() {
        true => done.out,
        false => done.good(EngineFaultKind::Refused)?,
    };
    let info = told::info(&out)?;
    let flavour = match told::is_podman(&out) {
        true => Flavour::Podman,
        false => program.flavour,
    };
    Ok((flavour, info))
}

impl Engine for Cli {
    fn name(&self) -> &'static str {
        "cli"
    }

    fn info(&self) -> Answer<EngineInfo> {
        let me = self.clone();
        Box::pin(async move { info_of(me.program().await?).await.map(|(_, info)| info) })
    }

    fn ping(&self) -> Answer<()> {
        let me = self.clone();
        Box::pin(async move {
            // Podman has no daemon that could be away.
            if me.program().await?.flavour == Flavour::Podman {
                let there = me.program().await?.path.metadata();
                let gone = |e| EngineFault::of_io("find podman", &e);
                return there.map(|_| ()).map_err(gone);
            }
            let args = ["version", "--format", "{{.Server.Version}}"];
            me.program().await?.ask(&args).await.map(|_| ())
        })
    }

    fn find_image(&self, image: &str) -> Answer<Option<ImageFacts>> {
        let (me, image) = (self.clone(), image.to_owned());
        Box::pin(async move {
            let args = ["image", "inspect", &image];
            match me.program().await?.ask(&args).await {
                Ok(answer) => told::image(&answer).map(Some),
                Err(fault) if fault.kind == EngineFaultKind::NoSuchImage => Ok(None),
                Err(fault) => Err(fault),
            }
        })
    }

    fn pull(&self, image: &str, progress: Progress) -> Answer<()> {
        let (me, image) = (self.clone(), image.to_owned());
        Box::pin(async move {
            let (out, err) = (Stdio::piped(), Stdio::piped());
            let mut child = me
                .program()
                .await?
                .spawn(["pull", &image], out, err, false)?;
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let (_, words) = tokio::join!(tell(out, &progress), tell(err, &progress));
            match child.wait().await {
                Ok(status) if status.success() => Ok(()),
                _ => Err(program::fault(&words, EngineFaultKind::PullFailed)),
            }
        })
    }

    fn create(&self, spec: Arc<CreateSpec>) -> Answer<String> {
        let me = self.clone();
        Box::pin(async move {
            let (args, env) = ask::create(&spec, me.program().await?.flavour)?;
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let done = me.program().await?.run(&args, Some(&env)).await?;
            let out = done.good(EngineFaultKind::Refused)?;
            let out = String::from_utf8_lossy(&out);
            match out.lines().map(str::trim).rfind(|l| is_id(l)) {
                Some(id) => Ok(id.to_owned()),
                None => Err(EngineFault::new(
                    EngineFaultKind::Nonsense,
                    "it made something without an id",
                )),
            }
        })
    }

    /// A command attaches when it starts, so this only puts the feed by.
    fn attach(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let (tell, ended) = oneshot::channel();
            me.feeds().insert(id, (feed, tell));
            Ok(ended)
        })
    }

    fn attach_again(&self, id: &str, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let args = ["attach", "--no-stdin", "--sig-proxy=false", &id];
            let one = me.one().await?;
            let child = one
                .program
                .spawn(args, Stdio::piped(), Stdio::piped(), false)?;
            let (tell, ended) = oneshot::channel();
            let last = match one.program.flavour {
                Flavour::Podman => Last::ALineEndOfItsOwn,
                Flavour::Docker | Flavour::Other => Last::Nothing,
            };
            one.hands_on(id, child, (feed, tell), (Vec::new(), last));
            Ok(ended)
        })
    }

    fn logs_without_engine(&self) -> bool {
        let chosen = self.0.chosen.get();
        chosen.is_some_and(|one| one.program.flavour == Flavour::Podman)
    }

    fn how_to_have_gpus(&self) -> &'static str {
        match self.0.chosen.get().map(|one| one.program.flavour) {
            Some(Flavour::Docker) => BY_HOOK,
            Some(Flavour::Podman | Flavour::Other) | None => BY_CDI,
        }
    }

    fn start(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let feed = me.feeds().remove(&id);
            match feed {
                Some(feed) => me.start_attached(&id, feed).await,
                None => me.program().await?.ask(&["start", &id]).await.map(|_| ()),
            }
        })
    }

    fn signal(&self, id: &str, signal: i32) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            me.act(&["kill", "--signal", &signal.to_string(), &id])
                .await
        })
    }

    fn inspect(&self, id: &str) -> Answer<Option<ContainerFacts>> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.facts(&id).await })
    }

    fn wait(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let mut deaths = me.one().await?.follower.listen();
            // The follower may have begun to listen too late for the first ones.
            let mut patience = LOOK * 4;
            loop {
                match me.facts(&id).await?.map(|f| f.state) {
                    None | Some(ContainerState::Exited) => return Ok(()),
                    Some(_) => {}
                }
                let heard = async {
                    while let Ok(line) = deaths.recv().await {
                        if line.is_empty() || line.contains(&*id) {
                            return;
                        }
                    }
                };
                let _ = tokio::time::timeout(patience, heard).await;
                patience = LOOK_AGAIN.min(patience * 4);
            }
        })
    }

    fn remove(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            me.feeds().remove(&id);
            let mut args = vec!["rm", "--force", "--volumes"];
            if me.program().await?.flavour == Flavour::Podman {
                // It would first ask to stop, for ten seconds.
                args.push("--time=0");
            }
            args.push(&id);
            loop {
                match me.act(&args).await {
                    // Somebody else's; its name is taken until it is done.
                    Err(fault) if fault.reason.contains("in progress") => pause(LOOK).await,
                    // One that is frozen can't be killed.
                    Err(fault) if fault.reason.contains("paused") => {
                        me.act(&["unpause", &id]).await?;
                    }
                    done => return done,
                }
            }
        })
    }

    fn list(&self, labels: BTreeMap<String, String>) -> Answer<Vec<Listed>> {
        let me = self.clone();
        Box::pin(async move {
            let filters: Vec<String> = labels
                .iter()
                .map(|(k, v)| format!("--filter=label={k}={v}"))
                .collect();
            let mut args = vec!["ps", "--all", "--quiet", "--no-trunc"];
            args.extend(filters.iter().map(String::as_str));
            let ids = me.program().await?.ask(&args).await?;
            let ids = String::from_utf8_lossy(&ids);
            let mut args = vec!["container", "inspect"];
            args.extend(ids.lines().map(str::trim).filter(|id| !id.is_empty()));
            if args.len() == 2 {
                return Ok(Vec::new());
            }
            // One that went away meanwhile makes the command fail, and the others are printed all the same.
            let done = me.program().await?.run(&args, None).await?;
            match done.out.trim_ascii().is_empty() {
                true => done.good(EngineFaultKind::Refused).map(|_| Vec::new()),
                false => told::listed(&done.out),
            }
        })
    }

    fn exec(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
        timeout: Duration,
    ) -> BoxFuture<CommandOutcome> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { command::in_time(timeout, me.exec_now(&id, argv, marker)).await })
    }

    /// The commands print rounded numbers for people, Docker's after two seconds, and no CPU time.
    fn stats(&self, _: &str) -> Answer<Stats> {
        let why = "a command tells no exact numbers of use";
        let fault = EngineFault::new(EngineFaultKind::Unsupported, why);
        Box::pin(std::future::ready(Err(fault)))
    }

    fn pause(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.program().await?.ask(&["pause", &id]).await.map(|_| ()) })
    }

    fn unpause(&self, id: &str) -> Answer<()> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move { me.act(&["unpause", &id]).await })
    }

    fn logs(&self, id: &str, newest: Option<u32>, feed: Feed) -> Answer<HandingOn> {
        let (me, id) = (self.clone(), id.to_owned());
        Box::pin(async move {
            let tail = newest.map(|lines| format!("--tail={lines}"));
            let args = ["logs"].into_iter().chain(tail.as_deref());
            let (out, err) = (Stdio::piped(), Stdio::piped());
            let child = me
                .program()
                .await?
                .spawn(args.chain([id.as_str()]), out, err, false)?;
            let (tell, ended) = oneshot::channel();
            tokio::spawn(async move {
                let (feed, ended) = hand_on(child, feed, Vec::new(), Last::Nothing).await;
                let end = ConnectionEnd::of(ended.is_some_and(|status| status.success()));
                let _ = tell.send(HandedOn { feed, end });
            });
            Ok(ended)
        })
    }
}

impl Cli {
    /// Starts it by a command that stays and hands its output on. What comes on standard error before the container is known
    /// to run is the container's only if it did run.
    async fn start_attached(&self, id: &str, to: Attached) -> Result<(), EngineFault> {
        let args = ["start", "--attach", id];
        let mut child = self
            .program()
            .await?
            .spawn(args, Stdio::piped(), Stdio::piped(), false)?;
        let mut err = child.stderr.take();
        let mut held = Vec::new();
        let ended = self
            .until_started(id, &mut child, &mut err, &mut held)
            .await?;
        child.stderr = err;
        if ended && !self.has_run(id).await? {
            if let Some(err) = child.stderr.take() {
                held.extend(keep(Some(err), HELD).await);
            }
            let words = String::from_utf8_lossy(&held);
            return Err(program::fault(&words, EngineFaultKind::Refused));
        }
        let one = self.one().await?;
        one.hands_on(id.to_owned(), child, to, (held, Last::Nothing));
        Ok(())
    }

    /// Waits until the container runs or the command has ended; says whether the latter. Standard error is read meanwhile, so
    /// that nothing is held up by it.
    async fn until_started(
        &self,
        id: &str,
        child: &mut Child,
        err: &mut Option<ChildStderr>,
        held: &mut Vec<u8>,
    ) -> Result<bool, EngineFault> {
        let look = async {
            loop {
                pause(LOOK).await;
                let facts = self.facts(id).await?;
                let state = facts.map(|f| f.state);
                if matches!(state, Some(s) if !matches!(s, ContainerState::Created | ContainerState::Between))
                {
                    return Ok(());
                }
            }
        };
        let read = async {
            let Some(err) = err.as_mut() else { return };
            let room = (HELD - held.len().min(HELD)) as u64;
            let _ = err.take(room).read_to_end(held).await;
        };
        tokio::pin!(read);
        tokio::select! {
            done = look => done.map(|()| false),
            ended = child.wait() => ended
                .map(|_| true)
                .map_err(|e| EngineFault::of_io("wait for its command", &e)),
            () = async { (&mut read).await; std::future::pending::<()>().await } => Ok(false),
        }
    }

    /// Whether it is beyond its start, now that the command that started it has ended.
    async fn has_run(&self, id: &str) -> Result<bool, EngineFault> {
        for _ in 0..50 {
            match self.facts(id).await?.map(|f| f.state) {
                // Podman's word for a container that is on its way down.
                Some(ContainerState::Between) => {
                    pause(LOOK).await;
                }
                state => return Ok(!matches!(state, None | Some(ContainerState::Created))),
            }
        }
        Ok(true)
    }

    async fn exec_now(
        &self,
        id: &str,
        argv: Vec<String>,
        marker: String,
    ) -> Result<CommandOutcome, EngineFault> {
        let args = ["exec".to_owned(), "--env".to_owned(), marker, id.to_owned()];
        let args = args.into_iter().chain(argv);
        let mut child = self
            .program()
            .await?
            .spawn(args, Stdio::piped(), Stdio::piped(), false)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (mut output, words) = tokio::join!(keep(out, KEPT), keep(err, KEPT));
        let status = child.wait().await;
        let status = status.map_err(|e| EngineFault::of_io("wait for its command", &e))?;
        // Docker's prints the engine's words on standard output.
        let said = String::from_utf8_lossy(&[&words[..], &output[..]].concat()).into_owned();
        // What the container's own shell says of a program that is not there has no engine in it.
        let by_engine = [
            "OCI runtime",
            "Error: ",
            "Error response from daemon",
            "level=fatal",
        ];
        if matches!(status.code(), Some(125..=127)) && by_engine.iter().any(|w| said.contains(w)) {
            let why = program::fault(&said, EngineFaultKind::NoSuchCommand);
            return Ok(CommandOutcome::CouldNotRun(why.to_string()));
        }
        output.extend_from_slice(&words[..words.len().min(KEPT - output.len())]);
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(_)) | (None, None) => ExitStatus::Unknown,
        };
        Ok(CommandOutcome::Ended { status, output })
    }
}

fn is_id(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Tells each line and keeps the last ones.
async fn tell<R: AsyncRead + Unpin>(source: Option<R>, progress: &Progress) -> String {
    let mut said = String::new();
    let Some(source) = source else { return said };
    let mut lines = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines)
            .take(KEPT as u64)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return said,
            Ok(_) => {}
        }
        let words = String::from_utf8_lossy(&line);
        if !words.trim().is_empty() {
            progress(&one_line(&words));
            if said.len() > HELD {
                said.clear();
            }
            said.push_str(&words);
        }
    }
}
