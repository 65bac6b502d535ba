//! `lair report`: the course of a run, as a page in a real browser, as text, as JSON.

mod face;

use face::{Lair, until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// Fails at first; then takes 60 MiB, serves, works a little, and says what would be a script if anybody let it.
const SCRIPT: &str = r#"
if ! [ -e seen ]; then : > seen; sleep 0.3; exit 7; fi
exec python3 -c '
import time
x = bytearray(60 << 20)
print("serving", flush=True)
print("</pre><script>document.title = \"broken\"</script><img src=x onerror=alert(1)>", flush=True)
while True:
    until = time.time() + 0.2
    while time.time() < until: pass
    print("tokens " * 50, flush=True)
    time.sleep(0.2)
'
"#;

/// A daemon with a module in its second run, of which there are a few samples.
fn lair_with_a_run() -> Lair {
    let lair = Lair::folder();
    let more = format!(
        "  health: {{ startup: {{ log: {{ pattern: serving }} }} }}\n  resources: {{ memory: 128MiB }}\n  restart: {{ policy: on-failure, backoff: {{ first: 100ms, cap: 100ms }} }}\n  # {}\n",
        lair.dir.display()
    );
    let script = SCRIPT.replace("seen", &lair.dir.join("seen").display().to_string());
    lair.module("m", &script, &more);
    let lair = lair.serve(&[]);
    assert!(lair.lair(&["start", "m", "-q"]).status.success());
    until("samples of the second run", SOON, || {
        let report = json(&lair, &["report", "m", "-o", "json"]);
        let samples = report["series"]["at_ms"].as_array().map_or(0, Vec::len);
        report["run"] == 2 && samples >= 3
    });
    lair
}

fn json(lair: &Lair, args: &[&str]) -> Value {
    let (_, out) = lair.ask(args);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
}

/// A real browser looks at a page, which may reach nothing.
fn chromium(profile: &Path, page: &Path, what: &str) -> Output {
    let out = Command::new("chromium")
        .args("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(' '))
        .args(
            "--disable-background-networking --disable-component-update --disable-sync".split(' '),
        )
        .args("--hide-scrollbars --window-size=1100,1900 --enable-logging=stderr".split(' '))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(what)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the package chromium");
    assert!(out.status.success(), "{out:?}");
    out
}

#[test]
fn a_real_browser_shows_the_plots_and_the_marks_and_runs_nothing_of_the_modules() {
    let lair = lair_with_a_run();
    assert!(lair.lair(&["stop", "m", "--wait", "-q"]).status.success());
    let page = lair.dir.join("m.html");
    let file = page.display().to_string();
    let written = lair.lair(&["report", "m", "--html", &file]);
    assert!(written.status.success(), "{written:?}");
    let text = fs::read_to_string(&page).expect("a page");
    for foreign in ["<script", "<img", "http://", "https://", "url(", "@import"] {
        assert!(!text.contains(foreign), "{foreign}: {text}");
    }

    let profile = lair.dir.join("profile");
    let shown = chromium(&profile, &page, "--dump-dom");
    let (dom, log) = (
        String::from_utf8_lossy(&shown.stdout).into_owned(),
        String::from_utf8_lossy(&shown.stderr).into_owned(),
    );
    // A refused style, a script, a picture that is looked for elsewhere: the console would have a line.
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(
        dom.contains("<title>m run 2 - lair report</title>"),
        "{dom}"
    );
    for plot in ["plot-memory", "plot-cpu", "plot-log", "plot-health"] {
        assert!(dom.contains(&format!("id=\"{plot}\"")), "{plot}: {dom}");
    }
    assert!(!dom.contains("id=\"plot-gpu\""), "it has no GPU");
    assert_eq!(
        dom.matches("<path class=\"line\" d=\"M").count(),
        3,
        "{dom}"
    );
    assert!(
        dom.contains("class=\"level limit\"") || dom.contains("limit 128MiB"),
        "{dom}"
    );
    // Ready, stopping and the end, in each of the three plots.
    assert!(dom.matches("<g class=\"mark ").count() >= 9, "{dom}");
    assert!(dom.contains("class=\"mark good\""), "{dom}");
    let tables = dom.split("id=\"events\"").nth(1).expect("events");
    for word in ["ready", "stopping", "exited"] {
        assert!(tables.contains(word), "{word}: {tables}");
    }
    // The restart: the run before is there with its end.
    let earlier = dom.split("id=\"earlier\"").nth(1).expect("runs before it");
    assert!(earlier.contains("exited with code 7"), "{earlier}");
    assert!(
        dom.contains("&lt;script&gt;document.title"),
        "its words are text"
    );
    assert!(!dom.contains("<script") && !dom.contains("<img"), "{dom}");

    // It is a picture, too.
    let picture = lair.dir.join("m.png");
    chromium(
        &profile,
        &page,
        &format!("--screenshot={}", picture.display()),
    );
    let png = fs::read(&picture).expect("a picture");
    assert!(
        png.starts_with(b"\x89PNG") && png.len() > 30_000,
        "{}",
        png.len()
    );
}

#[test]
fn the_terminal_and_programs_get_the_same_with_and_without_a_daemon() {
    let mut lair = lair_with_a_run();
    // Of a run that goes on, as of one that ended.
    let live = lair
        .command(&["report", "m"])
        .env("LC_ALL", "C.UTF-8")
        .output();
    let live = String::from_utf8(live.expect("lair").stdout).expect("text");
    for word in [
        "Memory  at most ",
        "CPUs  at most ",
        "Log output  at most ",
        "Health",
        "Events",
        "█",
    ] {
        assert!(live.contains(word), "{word}: {live}");
    }
    let widest = live.lines().take_while(|l| !l.contains("Run  "));
    assert!(
        widest.map(|l| l.chars().count()).max() <= Some(80),
        "{live}"
    );
    let ascii = lair.command(&["report", "m"]).env("LC_ALL", "C").output();
    let ascii = String::from_utf8(ascii.expect("lair").stdout).expect("text");
    let plots = ascii.split("Events").next().expect("plots");
    assert!(plots.is_ascii() && plots.contains('#'), "{plots}");

    assert!(lair.lair(&["stop", "m", "--wait", "-q"]).status.success());
    let before = json(&lair, &["report", "m", "-o", "json"]);
    let series = &before["series"];
    let columns = ["memory", "cpu_milli", "log_rate", "health"];
    let count = series["at_ms"].as_array().expect("times").len();
    for column in columns {
        assert_eq!(
            series[column].as_array().map(Vec::len),
            Some(count),
            "{column}"
        );
    }
    let memory = series["memory"].as_array().expect("memory");
    assert!(
        memory.iter().any(|n| n.as_u64() > Some(60 << 20)),
        "{series}"
    );
    let cpu = series["cpu_milli"].as_array().expect("cpu");
    assert!(cpu.iter().any(|n| n.as_u64() > Some(50)), "{series}");
    let marks = before["marks"].as_array().expect("marks");
    let last = &marks[marks.len() - 1];
    assert!(
        last["at_ms"].as_u64() >= series["at_ms"][count - 1].as_u64(),
        "{before:#}"
    );
    assert_eq!(before["earlier"][0]["run"], 1);

    // A run that was over before anybody looked says so.
    let (code, first) = lair.ask(&["report", "m", "--run", "1"]);
    assert_eq!(code, 0);
    assert!(first.contains("exited with code 7"), "{first}");

    assert_eq!(lair.term(), Some(0));
    until("the files of it", SOON, || {
        json(&lair, &["report", "m", "-o", "json"])["run"] == 2
    });
    let after = json(&lair, &["report", "m", "-o", "json"]);
    assert_eq!(
        after["series"], *series,
        "the files have what the daemon had"
    );
    let wrong = lair.lair(&["report", "nobody"]);
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
    let page = lair.dir.join("m.html");
    let written = lair.lair(&["report", "m", "--html", &page.display().to_string()]);
    assert!(written.status.success(), "{written:?}");
    let mode = fs::metadata(&page).expect("a page").mode();
    assert_eq!(mode & 0o777, 0o600, "the module's last words are in it");
    let wrong = lair.lair(&["report", "m", "--html", "/nonexistent/m.html"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
}
