//! Bytes to manifests, with every mistake at once.
//!
//! Owns: the two shapes of a file: one module, or a stack. Promises: YAML and JSON go the same way. Never: reads files;
//! see [`crate::source`].

use crate::config::RuntimeConfig;
use crate::decode::{Path, Sink, View};
use crate::module::{ModuleManifest, Origin};
use crate::problem::{Problem, ProblemKind};
use crate::source::{MAX_MODULE, MAX_STACK, Source, too_large};
use crate::stack::{Group, Stack};
use crate::tree::{self, Node};
use std::collections::HashMap;

/// Reads one module.
///
/// # Errors
/// Every mistake, in the order of the text.
pub fn parse_module(source: &Source) -> Result<ModuleManifest, Vec<Problem>> {
    let root = tree(source, MAX_MODULE)?;
    let mut sink = Sink::new(&source.name);
    let view = View {
        node: &root,
        path: Path::Root,
    };
    let module = ModuleManifest::read(view, &mut sink, &origin(source));
    sink.finish(module)
}

/// Reads a stack; a file with one module is a stack of one.
///
/// # Errors
/// Every mistake, in the order of the text.
pub fn parse_stack(source: &Source) -> Result<Stack, Vec<Problem>> {
    let root = tree(source, MAX_STACK)?;
    if root.child("modules").is_none() {
        if source.text.len() > MAX_MODULE {
            return Err(vec![too_large(&source.name, MAX_MODULE)]);
        }
        let mut sink = Sink::new(&source.name);
        let view = View {
            node: &root,
            path: Path::Root,
        };
        let module = ModuleManifest::read(view, &mut sink, &origin(source));
        return sink.finish(module.map(|m| Stack {
            modules: vec![m],
            groups: Vec::new(),
        }));
    }
    let mut sink = Sink::new(&source.name);
    let view = View {
        node: &root,
        path: Path::Root,
    };
    let stack = stack(view, &mut sink, &origin(source));
    sink.finish(stack)
}

/// Reads the runtime's configuration: the key `runtime` of a file that may belong to others too.
///
/// # Errors
/// Every mistake, in the order of the text.
pub fn parse_config(source: &Source) -> Result<RuntimeConfig, Vec<Problem>> {
    let root = tree(source, MAX_MODULE)?;
    if root.is_null() {
        return Ok(RuntimeConfig::default());
    }
    let mut sink = Sink::new(&source.name);
    let view = View {
        node: &root,
        path: Path::Root,
    };
    let table = view.loose(&mut sink, &[]);
    let config = table.and_then(|t| t.or("runtime", &mut sink, || None));
    sink.finish(config.map(Option::unwrap_or_default))
}

fn tree(source: &Source, limit: usize) -> Result<Node<'_>, Vec<Problem>> {
    if source.text.len() > limit {
        return Err(vec![too_large(&source.name, limit)]);
    }
    tree::read(&source.name, &source.text, 4 * limit).map_err(|problem| vec![problem])
}

fn origin(source: &Source) -> Origin {
    Origin {
        file: source.name.clone(),
        dir: source.dir.clone(),
        digest: source.digest.clone(),
        pointer: String::new(),
    }
}

fn stack(view: View<'_, '_>, sink: &mut Sink, origin: &Origin) -> Option<Stack> {
    let table = view.table(sink, &["modules", "groups"])?;
    let modules = table.with("modules", |list| {
        let path = list.path;
        let items = list.items(sink)?;
        let read = |(i, node)| {
            let view = View {
                node,
                path: Path::Index(&path, i),
            };
            ModuleManifest::read(view, sink, origin)
        };
        let read: Vec<Option<ModuleManifest>> = items.iter().enumerate().map(read).collect();
        Some(read)
    });
    let groups: Option<Vec<Group>> = table.or("groups", sink, Vec::new);
    let crate::decode::Field::Good(modules) = modules else {
        return None;
    };
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (i, module) in modules.iter().enumerate() {
        let Some(module) = module else { continue };
        if let Some(first) = names.insert(module.name.as_str(), i) {
            let below = ["modules", &i.to_string(), "name"];
            let what = format!("module {first} has the same name");
            view.fault(sink, ProblemKind::Duplicate, &below, what, None);
        }
    }
    if modules.is_empty() {
        view.fault(
            sink,
            ProblemKind::Invalid,
            &["modules"],
            "a stack has at least one module",
            None,
        );
    }
    let groups = groups?;
    crate::stack::check(&groups, &|name| names.contains_key(name), view, sink);
    let modules: Option<Vec<ModuleManifest>> = modules.into_iter().collect();
    Some(Stack {
        modules: modules?,
        groups,
    })
}
