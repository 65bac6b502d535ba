//! State in, picture out: no terminal, no daemon.

use super::draw::{Theme, draw};
use super::model::Row;
use super::state::{EventLine, LogWant, News, Pane, State, Verb};
use crate::bridge::logline::LogLine;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

/// 2026-11-23T15:00:01Z
const NOW: i64 = 1_795_446_001_000;

fn row(name: &str, state: &str, more: Value) -> Row {
    let mut value = json!({
        "name": name, "state": state, "run": 3, "ready": state == "running",
        "health": { "state": "healthy", "reason": null },
        "restarts": { "count": 2, "next_at": null },
        "resources": { "memory": { "limit": 67_108_864, "current": 12_582_912 }, "cpu_ms": 100, "gpu": [] },
        "ports": [{ "name": "api", "port": 8080, "address": "127.0.0.1" }],
        "started_at": "2026-11-23T14:59:00.000Z", "unknown_to_us": [1, 2]
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    serde_json::from_value(value).expect("a row")
}

fn state(rows: Vec<Row>) -> State {
    let mut state = State {
        now_ms: NOW,
        ..State::default()
    };
    state.take(News::List(rows, 0));
    state
}

fn three() -> State {
    state(vec![
        row("backend", "running", json!({})),
        row(
            "database",
            "backoff",
            json!({ "restarts": { "count": 4, "next_at": "2026-11-23T15:00:13.000Z" },
                    "reason": { "code": "crashed", "message": "ended with code 3" } }),
        ),
        row(
            "web",
            "failed",
            json!({ "health": { "state": "unhealthy", "reason": "GET /health answered 503" } }),
        ),
    ])
}

fn picture(state: &mut State, theme: &Theme, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| draw(frame, state, theme))
        .expect("a picture");
    terminal
}

fn text(state: &mut State, width: u16, height: u16) -> String {
    let terminal = picture(state, &Theme::new(false, true), width, height);
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

fn press(state: &mut State, keys: &str) -> Option<(Verb, String)> {
    let mut act = None;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        act = state.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    act
}

fn line_of<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines()
        .find(|l| l.starts_with(word))
        .unwrap_or_else(|| panic!("no line {word:?} in\n{text}"))
}

#[test]
fn a_row_says_all_that_matters_on_eighty_columns() {
    let seen = text(&mut three(), 80, 24);
    let row = line_of(&seen, "database");
    for wanted in ["backoff", "healthy", " 3 ", "4 in 12s", "12MiB/64MiB"] {
        assert!(row.contains(wanted), "{wanted}: {row}");
    }
    assert!(line_of(&seen, "backend").ends_with("1m1s"), "{seen}");
    assert!(seen.contains("1 running  1 backoff  1 failed"), "{seen}");
    let strip = line_of(&seen, "backend ready");
    assert!(!strip.is_empty());
    assert!(seen.contains("api:8080"), "{seen}");
}

#[test]
fn the_reason_of_the_chosen_module_is_always_seen() {
    let mut state = three();
    press(&mut state, "j");
    assert!(text(&mut state, 80, 24).contains("database: ended with code 3 [crashed]"));
    press(&mut state, "j");
    assert!(text(&mut state, 80, 24).contains("web: GET /health answered 503"));
}

#[test]
fn wide_terminals_have_ports_curves_and_reasons_in_the_table() {
    let seen = text(&mut three(), 200, 24);
    let row = line_of(&seen, "web");
    assert!(row.contains("api:8080"), "{row}");
    assert!(row.contains("GET /health answered 503"), "{row}");
}

#[test]
fn every_size_is_drawn_without_a_panic() {
    for pane in [
        None,
        Some(Pane::Details),
        Some(Pane::Logs),
        Some(Pane::Events),
        Some(Pane::Gpus),
    ] {
        for (width, height) in [(1, 1), (39, 9), (40, 10), (80, 24), (81, 10), (300, 100)] {
            let mut state = three();
            state.pane = pane;
            state.help = width % 2 == 0;
            state.asked = Some((Verb::Kill, "web".repeat(40)));
            text(&mut state, width, height);
        }
    }
}

#[test]
fn without_colour_no_cell_has_one_and_the_choice_is_still_seen() {
    let terminal = picture(&mut three(), &Theme::new(false, false), 80, 24);
    let cells = terminal.backend().buffer().content();
    assert!(
        cells
            .iter()
            .all(|c| c.fg == Color::Reset && c.bg == Color::Reset)
    );
    assert!(cells.iter().all(|c| c.symbol().is_ascii()));
    assert!(
        cells
            .iter()
            .any(|c| c.modifier.contains(Modifier::REVERSED))
    );
    let terminal = picture(&mut three(), &Theme::new(true, true), 80, 24);
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().any(|c| c.fg == Color::Red));
}

#[test]
fn a_filter_shows_what_fits_and_escape_shows_all_again() {
    let mut state = three();
    press(&mut state, "/fail");
    let seen = text(&mut state, 80, 24);
    assert!(seen.contains("filter: fail_"), "{seen}");
    assert!(!seen.contains("database"), "{seen}");
    assert_eq!(state.selected.as_deref(), Some("web"));
    press(&mut state, "\n\u{1b}");
    assert!(text(&mut state, 80, 24).contains("database"));
    press(&mut state, "/no such\n");
    assert!(text(&mut state, 80, 24).contains("no module fits the filter"));
}

#[test]
fn sorting_by_state_puts_the_worst_first_and_keeps_the_choice() {
    let mut state = three();
    press(&mut state, "o");
    let names =
        |s: &State| -> Vec<String> { s.order.iter().map(|at| s.rows[*at].name.clone()).collect() };
    assert_eq!(names(&state), ["web", "database", "backend"]);
    assert_eq!(state.selected.as_deref(), Some("backend"));
    press(&mut state, "O");
    assert_eq!(names(&state), ["backend", "database", "web"]);
}

#[test]
fn what_ends_something_asks_first_and_only_yes_does_it() {
    let mut state = three();
    for (key, verb) in [("x", Verb::Stop), ("r", Verb::Restart), ("K", Verb::Kill)] {
        assert_eq!(press(&mut state, key), None);
        assert!(text(&mut state, 80, 24).contains(&format!("{} backend?", verb.word())));
        assert_eq!(press(&mut state, "jl"), None, "nothing else is heard");
        assert_eq!(press(&mut state, "n"), None);
        assert_eq!(press(&mut state, "y"), None, "it was taken back");
        press(&mut state, key);
        assert_eq!(press(&mut state, "y"), Some((verb, "backend".to_owned())));
    }
    assert_eq!(
        press(&mut state, "s"),
        Some((Verb::Start, "backend".to_owned()))
    );
}

#[test]
fn a_lost_daemon_is_said_and_nothing_is_asked_of_it() {
    let mut state = three();
    state.take(News::Lost("no lair answers at /x: refused".into()));
    let seen = text(&mut state, 80, 24);
    assert!(
        seen.contains("lost lair, tried again each second: no lair answers at /x"),
        "{seen}"
    );
    assert!(seen.contains("database"), "what was known stays: {seen}");
    assert_eq!(press(&mut state, "x"), None);
    assert_eq!(state.asked, None);
    state.take(News::List(Vec::new(), 1));
    assert!(text(&mut state, 80, 24).contains("no module is loaded"));
}

fn log(state: &mut State, first: bool, lines: impl Iterator<Item = String>) {
    let want = state.want().log.unwrap_or_default();
    let line = |text: String| LogLine {
        name: want.name.clone(),
        run: 1,
        at: Some("2026-11-23T15:00:00.000000000Z".into()),
        stream: "stdout".into(),
        partial: false,
        text,
        base64: None,
    };
    let lines = lines.map(line).collect();
    state.take(News::Log(want.clone(), first, lines));
}

#[test]
fn a_log_is_followed_held_searched_and_bounded() {
    let mut state = three();
    press(&mut state, "l");
    log(&mut state, true, (0..5000).map(|n| format!("line {n}")));
    assert_eq!(state.logs.lines.len(), super::logs::LINES);
    assert!(text(&mut state, 80, 24).contains("line 4999"));
    press(&mut state, "f");
    log(&mut state, false, std::iter::once("line 5000".to_owned()));
    assert!(
        !text(&mut state, 80, 24).contains("line 5000"),
        "it is held"
    );
    press(&mut state, "f");
    assert!(text(&mut state, 80, 24).contains("line 5000"));
    press(&mut state, "/line 41\n");
    assert!(text(&mut state, 80, 24).contains("line 4199"));
    press(&mut state, "n");
    assert!(text(&mut state, 80, 24).contains("line 4198"));
    assert!(!text(&mut state, 80, 24).contains("line 4199"));
}

#[test]
fn lines_of_a_log_that_is_no_longer_looked_at_are_dropped() {
    let mut state = three();
    press(&mut state, "l");
    log(&mut state, true, std::iter::once("mine".to_owned()));
    let other = LogWant {
        name: "web".into(),
        ..LogWant::default()
    };
    state.take(News::Log(other, false, Vec::new()));
    assert_eq!(state.logs.lines.len(), 1);
    press(&mut state, "t");
    assert_eq!(state.want().log.and_then(|l| l.stream), Some("stdout"));
    assert!(
        text(&mut state, 80, 24).contains("asking ..."),
        "another part"
    );
    press(&mut state, "p");
    assert!(state.want().log.is_some_and(|l| l.previous));
}

#[test]
fn colours_that_a_module_prints_do_not_reach_the_terminal() {
    let mut state = three();
    press(&mut state, "l");
    let lines = ["\u{1b}[31mred\u{1b}[0m", "10%\r50%\r100%", "a\tb"];
    log(&mut state, true, lines.iter().map(|l| (*l).to_owned()));
    let seen = text(&mut state, 80, 24);
    for wanted in ["  red\n", "  100%\n", "  a    b\n"] {
        assert!(seen.contains(wanted), "{wanted:?}: {seen}");
    }
}

#[test]
fn events_are_those_of_all_and_then_of_one() {
    let mut state = three();
    let event = |name: &str| EventLine {
        name: name.into(),
        text: format!("7 module.exited {name}"),
    };
    state.take(News::Events(true, vec![event("backend"), event("web")]));
    press(&mut state, "e");
    let seen = text(&mut state, 80, 24);
    assert!(seen.contains("exited backend") && seen.contains("exited web"));
    press(&mut state, "e");
    let seen = text(&mut state, 80, 24);
    assert!(
        seen.contains("exited backend") && !seen.contains("exited web"),
        "{seen}"
    );
    press(&mut state, "e");
    assert_eq!(state.pane, None);
}

#[test]
fn gpus_show_every_process_with_its_owner() {
    let mut state = three();
    press(&mut state, "u");
    assert!(state.want().gpus);
    let process = |pid: i32, owner: &str, module: Value| {
        json!({ "pid": pid, "name": "python3", "memory": 1_073_741_824u64,
                "owner": owner, "module": module, "run": module.is_string().then_some(2) })
    };
    let report = json!({ "available": true, "reason": null, "gpus": [{
        "index": 0, "uuid": "GPU-1", "pci": null, "name": "RTX 4090",
        "memory": { "total": 8_589_934_592u64, "used": 3_221_225_472u64, "strangers": 1, "reserve": 0, "room": 1 },
        "busy_percent": 40, "temperature_c": 61, "fault": null,
        "modules": [{ "module": "web", "vram": null, "left_behind": false }],
        "processes": [process(11, "module", json!("web")), process(12, "left_behind", json!("db")),
                      process(13, "stranger", Value::Null)] }] });
    let report = serde_json::from_value(report).expect("a report");
    state.take(News::Gpus(Box::new(report)));
    let seen = text(&mut state, 80, 30);
    for wanted in [
        "0 RTX 4090  3GiB of 8GiB, busy 40%, 61 C",
        "given to web: alone",
        "python3, of web",
        "python3, left behind by db (run 2)",
        "python3, a stranger",
    ] {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
}

#[test]
fn a_thousand_modules_scroll_and_only_a_page_is_put_into_words() {
    let rows = (0..1000)
        .map(|n| row(&format!("m{n:04}"), "running", json!({})))
        .collect();
    let mut state = state(rows);
    assert!(text(&mut state, 80, 24).contains("m0000"));
    press(&mut state, "G");
    let seen = text(&mut state, 80, 24);
    assert!(seen.contains("m0999") && !seen.contains("m0000"), "{seen}");
    press(&mut state, "g");
    assert!(text(&mut state, 80, 24).contains("m0000"));
    // The chosen one stays chosen when the table changes, and the nearest when it goes.
    press(&mut state, "jj");
    state.take(News::List(vec![row("m0002", "running", json!({}))], 5));
    assert_eq!(state.selected.as_deref(), Some("m0002"));
    state.take(News::List(vec![row("other", "running", json!({}))], 6));
    assert_eq!(state.selected.as_deref(), Some("other"));
    assert_eq!(state.trends.len(), 1, "what is unloaded is forgotten");
}

/// A real panic, with the program's own hook, in a real terminal: this test is what runs in tmux, too.
#[test]
fn a_bug_of_top_leaves_the_terminal_as_it_was() {
    const INNER: &str = "LAIR_TEST_TOP_PANICS";
    const NAME: &str = "cli::top::test::a_bug_of_top_leaves_the_terminal_as_it_was";
    if std::env::var_os(INNER).is_some() {
        crate::cli::tell_of_bugs();
        let _screen = super::terminal::Screen::take().expect("a terminal");
        panic!("on purpose");
    }
    let me = std::env::current_exe().expect("a path");
    let dir = std::env::temp_dir().join(format!("lair-top-panics-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let tmux = |args: &[&str]| {
        let mut command = std::process::Command::new("tmux");
        command.arg("-S").arg(dir.join("tmux")).args(args);
        let out = command.env_remove("TMUX").output().expect("tmux");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let script = format!(
        "stty -a > {0}/before; echo a line of before; {1}=1 {2} --exact {NAME} --nocapture; stty -a > {0}/after; echo it ended; read -r _",
        dir.display(),
        INNER,
        me.display()
    );
    tmux(&[
        "-f",
        "/dev/null",
        "new-session",
        "-d",
        "-x",
        "120",
        "-y",
        "30",
        "/bin/sh",
        "-c",
        &script,
    ]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut screen = String::new();
    while !screen.contains("it ended") {
        assert!(std::time::Instant::now() < end, "{screen}");
        screen = tmux(&["capture-pane", "-p"]);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let alternate = tmux(&["display", "-p", "#{alternate_on} #{cursor_flag}"]);
    tmux(&["kill-server"]);
    let [before, after] = ["before", "after"].map(|f| std::fs::read_to_string(dir.join(f)));
    assert!(
        screen.contains("a line of before") && screen.contains("lair: a bug"),
        "{screen}"
    );
    assert!(screen.contains("on purpose"), "{screen}");
    assert_eq!(
        alternate.trim(),
        "0 1",
        "the alternate screen is left, the cursor shown"
    );
    assert_eq!(before.expect("stty"), after.expect("stty"));
    let _ = std::fs::remove_dir_all(dir);
}
