//! Modules of a crate do not import each other in a circle: each module can be read, and tested, after the
//! modules on which it is built.
//!
//! A module is a file. It imports what its paths lead to, outside test code and followed through re-exports
//! to the file that holds the item. Declaring a module (`mod a;`) or re-exporting from it is no import,
//! except in the root of a crate: readers begin there, so what modules share has a file of its own.
//! A module that itself uses a name that it re-exports imports what stands behind the name.
//! Paths inside macros and calls of methods are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::Finding;
use super::tree::TextFile;

/// The path of a module or an item inside a crate, without `crate`.
type ItemPath = Vec<String>;

/// The modules that each module imports.
type Imports<'a> = BTreeMap<&'a ItemPath, BTreeSet<&'a ItemPath>>;

/// One file of a crate.
#[derive(Debug, Default)]
struct Module {
    /// The path of the file.
    path: String,
    /// Every path that it names.
    named: BTreeSet<ItemPath>,
    /// Names that it imports or re-exports, and the paths for which they stand.
    names: BTreeMap<String, ItemPath>,
}

/// Checks every crate under `agent/`.
pub(crate) fn check(files: &[TextFile], is_test: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, BTreeMap<ItemPath, Module>> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_test(&file.path)) {
        let Some((krate, mut module)) = place(&file.path) else { continue };
        let Ok(tree) = syn::parse_file(&file.text) else { continue };
        let modules = crates.entry(krate).or_default();
        if module.is_empty() && modules.contains_key(&module) {
            // A program beside a library, whose root was read before: it is one more module, built on that.
            module.push("main".to_owned());
        }
        let mut reader = Reader { at: module.clone(), ..Reader::default() };
        reader.module.path.clone_from(&file.path);
        reader.visit_file(&tree);
        modules.insert(module, reader.finish());
    }
    crates.values().flat_map(check_crate).collect()
}

fn check_crate(modules: &BTreeMap<ItemPath, Module>) -> Vec<Finding> {
    let finding = |circle: &Vec<&ItemPath>| {
        let names: Vec<String> = circle.iter().map(|module| name(module)).collect();
        let path = circle.first().and_then(|module| modules.get(*module)).map_or("", |module| &module.path);
        Finding::new(path, 1, format!("modules import each other in a circle: {}", names.join(", ")))
    };
    circles(&imports(modules)).iter().map(finding).collect()
}

fn name(module: &ItemPath) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// The crate's folder and the module's path; `None` for a file that is no source of a library or a program.
fn place(path: &str) -> Option<(&str, ItemPath)> {
    let (krate, file) = path.strip_prefix("agent/")?.split_once("/src/")?;
    let mut module: ItemPath = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    Some((krate, module))
}

/// Which modules each module imports.
fn imports(modules: &BTreeMap<ItemPath, Module>) -> Imports<'_> {
    let imported = |at: &ItemPath, module: &Module| {
        module.named.iter().filter_map(|path| home(modules, path)).filter(|home| *home != at).collect()
    };
    modules.iter().map(|(at, module)| (at, imported(at, module))).collect()
}

/// The module that holds the item of this path.
fn home<'a>(modules: &'a BTreeMap<ItemPath, Module>, path: &[String]) -> Option<&'a ItemPath> {
    let mut path = path.to_vec();
    // Re-exports of re-exports are followed this often. A circle of re-exports does not compile.
    for _ in 0..8 {
        let len = (0..=path.len()).rev().find(|len| modules.contains_key(&path[..*len]))?;
        let (found, module) = modules.get_key_value(&path[..len])?;
        match path.get(len).and_then(|name| module.names.get(name)) {
            Some(target) => path = [target.as_slice(), &path[len + 1..]].concat(),
            None => return Some(found),
        }
    }
    None
}

/// Groups of modules in which each module imports each other one, directly or through others.
fn circles<'a>(imports: &Imports<'a>) -> Vec<Vec<&'a ItemPath>> {
    let reached: BTreeMap<&ItemPath, BTreeSet<&ItemPath>> =
        imports.keys().map(|module| (*module, reachable(imports, module))).collect();
    let mut found: BTreeSet<Vec<&ItemPath>> = BTreeSet::new();
    for (module, theirs) in &reached {
        let circle: Vec<&ItemPath> =
            theirs.iter().filter(|other| reached[**other].contains(*module)).copied().collect();
        if !circle.is_empty() {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

fn reachable<'a>(imports: &Imports<'a>, from: &ItemPath) -> BTreeSet<&'a ItemPath> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&ItemPath> = imports.get(from).into_iter().flatten().copied().collect();
    while let Some(module) = next.pop() {
        if found.insert(module) {
            next.extend(imports.get(module).into_iter().flatten());
        }
    }
    found
}

/// Collects the paths that a file names.
#[derive(Debug, Default)]
struct Reader {
    /// The module that is read. Inner modules count as part of their file.
    at: ItemPath,
    module: Module,
    /// Its paths of one segment. They lead out of the module if they are names of a `use`.
    words: BTreeSet<String>,
}

impl Reader {
    /// The same path from the crate's root. A path that begins with a name may lead into a module below, or
    /// out of the crate. In the second case it ends in this module, which does not import itself.
    fn resolve(&self, path: &[String]) -> ItemPath {
        let (mut base, mut rest) = match path.first().map_or("", String::as_str) {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (self.at.clone(), &path[1..]),
            _ => (self.at.clone(), path),
        };
        while rest.first().is_some_and(|part| part == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        base
    }

    /// The module, once the whole file is read: a `use` may stand behind the first use of its name.
    fn finish(mut self) -> Module {
        for word in &self.words {
            self.module.named.extend(self.module.names.get(word).cloned());
        }
        self.module
    }

    fn is_root(&self) -> bool {
        self.at.is_empty()
    }

    fn read_use(&mut self, item: &syn::ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
        for (path, name) in paths {
            let target = self.resolve(&path);
            if !is_reexport || self.is_root() {
                self.module.named.insert(target.clone());
            }
            self.module.names.insert(name, target);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !super::rust::is_test_item(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if self.is_root() && item.content.is_none() {
            self.module.named.insert(self.resolve(&[item.ident.to_string()]));
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.read_use(item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [word] = parts.as_slice() {
            self.words.insert(word.clone());
        } else {
            self.module.named.insert(self.resolve(&parts));
        }
        visit::visit_path(self, path);
    }
}

/// Each path of a `use`, and the name that it gets here.
fn flatten(tree: &syn::UseTree, before: &mut ItemPath, paths: &mut Vec<(ItemPath, String)>) {
    let mut add = |last: &syn::Ident, name: &syn::Ident| {
        let whole = if last == "self" { before.clone() } else { [&before[..], &[last.to_string()]].concat() };
        let name = if name == "self" { before.last().cloned().unwrap_or_default() } else { name.to_string() };
        paths.push((whole, name));
    };
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, paths);
            before.pop();
        }
        syn::UseTree::Name(name) => add(&name.ident, &name.ident),
        syn::UseTree::Rename(rename) => add(&rename.ident, &rename.rename),
        syn::UseTree::Glob(_) => paths.push((before.clone(), String::new())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, paths)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| TextFile {
            path: format!("agent/x/src/{path}"),
            text: (*text).to_owned(),
        };
        let files: Vec<TextFile> = files.iter().map(file).collect();
        check(&files, |_| false).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_circle_is_named_once_with_all_its_modules() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::{b::B, c};"),
            ("b.rs", "fn f() { super::c::g() }"),
            ("c/mod.rs", "impl crate::a::T for u8 {}"),
        ];
        assert_eq!(found(&files), ["modules import each other in a circle: a, b, c"]);
    }

    #[test]
    fn declaring_reexporting_and_testing_is_no_import() {
        let files = [
            ("lib.rs", "mod a; pub use a::{A, inner as other};"),
            ("a/mod.rs", "mod inner; pub(crate) use self::inner::I; use crate::b::B; pub struct A;"),
            ("a/inner.rs", "pub struct I; #[cfg(test)] mod tests { use crate::b; use super::*; }"),
            ("b.rs", "use crate::a::I; pub struct B;"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn a_reexport_leads_to_the_module_of_the_item() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "pub struct A; use crate::b::B;"),
            ("b.rs", "pub struct B; use crate::A;"),
        ];
        assert_eq!(found(&files), ["modules import each other in a circle: a, b"]);
    }

    #[test]
    fn a_module_that_uses_what_it_reexports_imports_it() {
        let below = ("a/inner.rs", "pub struct I(super::Kind);");
        let uses = ("a/mod.rs", "mod inner; pub enum Kind {} fn f(_: I) {} pub(crate) use inner::I;");
        assert_eq!(found(&[uses, below]), ["modules import each other in a circle: a, a::inner"]);
        let shows = ("a/mod.rs", "mod inner; pub enum Kind {} fn f(_: Kind) {} pub(crate) use inner::I;");
        assert_eq!(found(&[shows, below]), [""; 0]);
    }

    #[test]
    fn what_the_parent_reexports_is_imported_from_the_sibling_that_holds_it() {
        let parent = ("p/mod.rs", "mod a; mod b; pub use a::A; pub(crate) use b::B; fn f(_: A) {}");
        let above = ("p/a.rs", "pub struct A(super::B);");
        assert_eq!(found(&[parent, above, ("p/b.rs", "pub struct B;")]), [""; 0]);
        let circle = [parent, above, ("p/b.rs", "use super::A; pub struct B;")];
        assert_eq!(found(&circle), ["modules import each other in a circle: p::a, p::b"]);
    }

    #[test]
    fn what_modules_share_is_not_written_in_the_root_that_declares_them() {
        let shows = [("lib.rs", "mod a; pub use a::A; fn shared() {}"), ("a.rs", "use crate::shared;")];
        assert_eq!(found(&shows), ["modules import each other in a circle: the root, a"]);
        let declares = [("main.rs", "mod a; struct Shared;"), ("a.rs", "fn f(it: super::Shared) {}")];
        assert_eq!(found(&declares), ["modules import each other in a circle: the root, a"]);
        let apart = [
            ("lib.rs", "mod a; mod shared; pub use a::A; pub use shared::shared;"),
            ("a.rs", "use crate::shared;"),
            ("shared.rs", "pub fn shared() {}"),
        ];
        assert_eq!(found(&apart), [""; 0]);
    }

    #[test]
    fn a_program_is_built_on_the_library_beside_it() {
        let files = [
            ("lib.rs", "mod a; pub fn shared() {}"),
            ("main.rs", "mod b; fn main() { x::shared() }"),
            ("a.rs", "pub struct A;"),
            ("b.rs", "use x::shared;"),
        ];
        assert_eq!(found(&files), [""; 0]);
        let circle = [("lib.rs", "mod a; pub fn f() {}"), ("main.rs", ""), ("a.rs", "use crate::f;")];
        assert_eq!(found(&circle), ["modules import each other in a circle: the root, a"]);
    }
}
