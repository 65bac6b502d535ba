//! The page: one file, no script, nothing from elsewhere. Pure.

use super::Earlier;
use super::model::{Course, Mark, Weight, time_word};
use super::svg;
use crate::cli::time::{bytes, cpus, span};
use crate::cli::view::exit_words;
use crate::cli::why::words;
use lair_actors::dossier::{Dossier, Line};
use std::fmt::Write;

/// Whatever got into the page all the same, a browser neither runs nor fetches it.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Text as it stands in a page, in an attribute too.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            // Neither colours of a terminal nor what turns the reading direction round.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The whole page.
#[must_use]
pub(super) fn page(d: &Dossier, course: &Course, earlier: &[Earlier]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{0} run {1} - lair report</title>\n<style>\n{2}</style>\n</head>\n<body>\n<main>\n",
        escape(&d.name),
        d.run,
        include_str!("page.css")
    );
    head(&mut html, d);
    tiles(&mut html, d, course);
    plots(&mut html, course);
    cause(&mut html, d);
    events(&mut html, &course.marks);
    facts(&mut html, d);
    output(&mut html, &d.last_lines);
    runs(&mut html, earlier);
    let _ = writeln!(
        html,
        "<footer>Written by lair {} at {}. Values of the environment and what looks like a key are hidden.</footer>\n</main>\n</body>\n</html>",
        escape(&d.lair),
        escape(&d.written_at)
    );
    html
}

fn head(html: &mut String, d: &Dossier) {
    let tone = match d.state.as_str() {
        "running" => "good",
        "starting" | "stopping" | "backoff" => "warn",
        _ if d.failed => "bad",
        _ => "soft",
    };
    let times = match (&d.started_at, &d.finished_at) {
        (Some(from), Some(to)) => format!("{from} to {to}"),
        (Some(from), None) => format!("since {from}"),
        (None, Some(at)) => format!("failed to start at {at}"),
        (None, None) => "it has not come up".to_owned(),
    };
    let _ = writeln!(
        html,
        "<header><h1>{} <small>run {}</small> <span class=\"state {tone}\">{}</span></h1>\n<p>{}</p>\n<p class=\"soft\">{}</p></header>",
        escape(&d.name),
        d.run,
        escape(&d.state),
        escape(&d.summary),
        escape(&times)
    );
}

fn tiles(html: &mut String, d: &Dossier, course: &Course) {
    let footprint = d.footprint.as_ref();
    let taken = footprint.map(|f| &f.taken);
    let usual = footprint.and_then(|f| f.usual.as_ref());
    let runs = usual.map_or(0, |u| u.runs);
    let beside = |text: Option<String>| text.map_or_else(String::new, |t| format!(", usually {t}"));
    let mut all = vec![(time_word(course.span_ms), "ran for".to_owned())];
    let mut add = |value: Option<String>, word: &str, usual: Option<String>| {
        all.extend(value.map(|value| (value, format!("{word}{}", beside(usual)))));
    };
    let show = |n: Option<u64>, with: fn(u64) -> String| n.map(with);
    let of = |s: Option<lair_actors::footprint::Spread>| s.map(|s| s.usual);
    add(
        show(taken.and_then(|t| t.memory), bytes),
        "memory at most",
        show(of(usual.and_then(|u| u.memory)), bytes),
    );
    add(
        show(taken.and_then(|t| t.gpu_memory), bytes),
        "GPU memory at most",
        show(of(usual.and_then(|u| u.gpu_memory)), bytes),
    );
    add(
        show(taken.and_then(|t| t.ready_ms), span),
        "until ready",
        show(of(usual.and_then(|u| u.ready_ms)), span),
    );
    add(
        show(taken.and_then(|t| t.cpu_milli), cpus),
        "CPUs on average",
        show(of(usual.and_then(|u| u.cpu_milli)), cpus),
    );
    add(Some(bytes(d.logs.bytes)), "of output", None);
    html.push_str("<div class=\"tiles\">\n");
    for (value, word) in all {
        let _ = writeln!(
            html,
            "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
            escape(&value),
            escape(&word)
        );
    }
    html.push_str("</div>\n");
    if let Some(change) = footprint.and_then(|f| f.change.as_ref()) {
        let _ = writeln!(html, "<p class=\"card\">{}</p>", escape(change));
    } else if runs > 0 {
        let _ = writeln!(
            html,
            "<p class=\"soft\">What is usual is known from {runs} of its runs.</p>"
        );
    }
}

fn plots(html: &mut String, course: &Course) {
    html.push_str("<section class=\"card\">\n");
    if course.is_empty() {
        html.push_str("<p>There are no samples of this run: it was over before lair looked, or ended with an earlier lair.</p>\n</section>\n");
        return;
    }
    for curve in course.curves.iter().filter(|c| c.most().is_some()) {
        let _ = write!(
            html,
            "<figure><figcaption>{}<span>{}</span></figcaption>\n{}</figure>\n",
            curve.title,
            escape(&curve.words()),
            svg::curve(course, curve)
        );
    }
    let _ = write!(
        html,
        "<figure><figcaption>Health<span><span class=\"good\">healthy</span> <span class=\"bad\">unhealthy</span> unknown</span></figcaption>\n{}</figure>\n</section>\n",
        svg::band(course)
    );
}

fn cause(html: &mut String, d: &Dossier) {
    if d.cause.is_none() && d.next_step.is_none() {
        return;
    }
    html.push_str("<section class=\"card cause\"><h2>Cause</h2>\n");
    match &d.cause {
        Some(cause) => {
            let _ = writeln!(
                html,
                "<p>{} <code>{}</code></p>",
                escape(&cause.message),
                escape(&cause.code)
            );
            if let Some(line) = &cause.line {
                let _ = writeln!(html, "<pre>{}</pre>", escape(line));
            }
        }
        None if d.failed => html.push_str("<p>None of the causes that lair knows.</p>\n"),
        None => {}
    }
    if let Some(next) = &d.next_step {
        let _ = writeln!(html, "<p><b>Next:</b> {}</p>", escape(next));
    }
    html.push_str("</section>\n");
}

fn events(html: &mut String, marks: &[Mark]) {
    if marks.is_empty() {
        return;
    }
    html.push_str("<section class=\"card\"><h2>Events</h2>\n<table id=\"events\">\n");
    for mark in marks {
        let class = match mark.weight {
            Weight::Plain => "",
            other => svg::class(other),
        };
        let _ = writeln!(
            html,
            "<tr><td class=\"n\">{}</td><td class=\"t\">{}</td><td class=\"t\">+{}</td><td class=\"{class}\">{}</td></tr>",
            mark.number,
            escape(&mark.time),
            time_word(mark.at_ms),
            escape(&mark.what)
        );
    }
    html.push_str("</table></section>\n");
}

fn facts(html: &mut String, d: &Dossier) {
    html.push_str("<section class=\"card\"><h2>The run</h2>\n<table>\n");
    let mut row = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(html, "<tr><th>{key}</th><td>{}</td></tr>", escape(value));
        }
    };
    row("Version", &d.version);
    row("Who", d.identity.as_deref().unwrap_or_default());
    row("Image", d.command.image.as_deref().unwrap_or_default());
    row("Command", &words(&d.command.argv));
    row("Folder", d.command.workdir.as_deref().unwrap_or_default());
    row("Mode", &format!("{} by {}", d.mode.mode, d.mode.backend));
    d.mode.explanation.iter().for_each(|line| row("", line));
    if let Some(reason) = &d.reason {
        row("Reason", &format!("{} [{}]", reason.message, reason.code));
    }
    if let Some(exit) = &d.exit {
        row("Exit", &exit_words(exit));
    }
    row("Left", &d.leftover.join(", "));
    let memory = &d.resources.memory;
    if let Some(limit) = memory.limit {
        let by = memory.by.as_deref().unwrap_or("nobody says by what");
        row("Limit", &format!("memory {} ({by})", bytes(limit)));
    }
    row("Health", d.health.reason.as_deref().unwrap_or_default());
    row("Origin", &d.origin);
    row("Log", d.logs.current.as_deref().unwrap_or(&d.logs.dir));
    d.notes.iter().for_each(|note| row("Note", note));
    html.push_str("</table></section>\n");
}

fn output(html: &mut String, lines: &[Line]) {
    if lines.is_empty() {
        return;
    }
    html.push_str("<section class=\"card\"><h2>Last words</h2>\n<pre id=\"output\">");
    for line in lines {
        let class = if line.stream == "stderr" {
            "stderr"
        } else {
            "stdout"
        };
        let _ = writeln!(
            html,
            "<span class=\"{class}\">{}</span>",
            escape(&line.text)
        );
    }
    html.push_str("</pre></section>\n");
}

fn runs(html: &mut String, earlier: &[Earlier]) {
    if earlier.is_empty() {
        return;
    }
    html.push_str("<section class=\"card\"><h2>Runs before it</h2>\n<table id=\"earlier\">\n");
    for run in earlier {
        let class = if run.failed { "bad" } else { "" };
        let _ = writeln!(
            html,
            "<tr><td class=\"n\">{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"{class}\">{}</td></tr>",
            run.run,
            escape(run.started_at.as_deref().unwrap_or("never came up")),
            run.ran_ms.map_or_else(String::new, span),
            escape(&run.summary)
        );
    }
    html.push_str("</table></section>\n");
}

#[cfg(test)]
mod test {
    use super::escape;

    #[test]
    fn text_of_a_module_is_text_in_the_page() {
        assert_eq!(
            escape("<script>alert('&\"')</script>"),
            "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"
        );
        assert_eq!(
            escape("a\x1b[31m\u{202e}b\tc\n"),
            "a\u{fffd}[31m\u{fffd}b\tc\n"
        );
    }
}
