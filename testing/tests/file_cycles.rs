//! No two files of a crate depend on each other, directly or through other files.
//!
//! A file depends on the files whose items it refers to: by `crate::…`, `super::…`, or the name of a child module or of
//! an imported module. A path through a re-export depends on the file that defines the item. Paths in the arguments of
//! macros are not seen.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, UseTree, Visibility};

/// The names in a path, for example `["crate", "schema", "Fields"]`. In the path of a module, `crate` is left out.
type Names = Vec<String>;

/// The modules of a crate that have a file of their own, by path.
type Modules = BTreeMap<Names, Module>;

/// The names in a file.
#[derive(Debug, Default)]
struct Module {
    /// Imported names with their paths.
    imports: BTreeMap<String, Names>,
    /// The paths by which the file refers to items: those of two names or more, and those of private imports of any
    /// length. The paths of re-exports are left out.
    paths: Vec<Names>,
    /// The number of inline modules around the current item.
    depth: usize,
}

#[test]
fn no_files_of_a_crate_depend_on_each_other() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let roots = crate_roots(workspace);
    assert!(roots.len() > 20, "crates are missing: {roots:?}");
    for root in roots {
        let modules = read_crate(&root);
        assert_eq!(find_cycle(&dependencies(&modules)), None, "in {}", root.display());
    }
}

#[test]
fn finds_a_cycle_through_a_re_export() {
    let sources = [
        ("", "mod lower; mod upper; mod other; pub use upper::Upper;"),
        ("lower", "fn f() -> crate::Upper {}"),
        ("upper", "use crate::lower::{self, Lower}; fn f() -> lower::Lower {} mod tests { use super::*; }"),
    ];
    let modules: Modules = sources
        .into_iter()
        .map(|(name, source)| (name.split_terminator("::").map(str::to_owned).collect(), parse(source)))
        .collect();
    assert_eq!(
        find_cycle(&dependencies(&modules)).as_deref(),
        Some("crate::lower -> crate::upper -> crate::lower")
    );
}

/// Finds the root files of crates: each `lib.rs` and `main.rs`. A test suite of several files has a `main.rs` too.
fn crate_roots(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let in_entry = |path: PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs" | "main.rs") => vec![path],
        Some(name) if path.is_dir() && !name.starts_with('.') && name != "target" => crate_roots(&path),
        _ => Vec::new(),
    };
    entries.flat_map(in_entry).collect()
}

fn read_crate(root: &Path) -> Modules {
    let folder = root.parent().expect("a folder");
    let mut modules = Modules::new();
    let mut unread = vec![(Names::new(), root.to_owned())];
    while let Some((name, file)) = unread.pop() {
        let source = fs::read_to_string(&file).expect("a source file");
        for item in syn::parse_file(&source).expect("Rust").items {
            if let Item::Mod(ItemMod { ident, content: None, .. }) = item {
                let child = [name.clone(), vec![ident.to_string()]].concat();
                let path = folder.join(child.join("/"));
                let files = [path.with_extension("rs"), path.join("mod.rs")];
                match files.into_iter().find(|file| file.exists()) {
                    Some(file) => unread.push((child, file)),
                    // `#[path]` names a file in another folder. That file is not read.
                    None => drop(modules.insert(child, Module::default())),
                }
            }
        }
        modules.insert(name, parse(&source));
    }
    modules
}

fn parse(source: &str) -> Module {
    let mut module = Module::default();
    module.visit_file(&syn::parse_file(source).expect("Rust"));
    module
}

impl Visit<'_> for Module {
    fn visit_item_mod(&mut self, item: &ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, item);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        self.add_imports(Names::new(), &item.tree, matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &syn::Path) {
        if path.segments.len() > 1 {
            self.add_path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &Visibility) {}
}

impl Module {
    fn add_imports(&mut self, mut path: Names, tree: &UseTree, is_private: bool) {
        let alias = match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                return self.add_imports(path, &tree.tree, is_private);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_imports(path.clone(), tree, is_private));
            }
            UseTree::Glob(_) => "*".to_owned(),
            UseTree::Name(name) if name.ident == "self" => path.last().cloned().unwrap_or_default(),
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                name.ident.to_string()
            }
            UseTree::Rename(rename) => {
                path.extend(Some(rename.ident.to_string()).filter(|name| name != "self"));
                rename.rename.to_string()
            }
        };
        if is_private {
            self.add_path(path.clone());
        }
        if self.depth == 0 {
            self.imports.insert(alias, path);
        }
    }

    /// Adds a path, after making it relative to the file's own module. Of the paths in an inline module, only those that
    /// lead out of the inline module are added: by `crate`, or by enough `super`.
    fn add_path(&mut self, mut path: Names) {
        let supers = path.iter().take_while(|name| *name == "super").count();
        if supers >= self.depth {
            path.drain(..self.depth);
            self.paths.push(path);
        } else if path[0] == "crate" {
            self.paths.push(path);
        }
    }
}

/// For each module, the modules that it depends on.
fn dependencies(modules: &Modules) -> BTreeMap<&Names, BTreeSet<&Names>> {
    let dependencies_of = |(name, module): (_, &Module)| {
        let used = module.paths.iter().filter_map(|path| resolve(modules, name, path, 0));
        (name, used.filter(|used| *used != name).collect())
    };
    modules.iter().map(dependencies_of).collect()
}

/// Finds the module that defines the item to which `module` refers by `path`. `None` if the item belongs to another
/// crate, or if the path begins with an item that `module` itself defines. Follows at most 8 imports, because imports
/// may form a cycle. `redirections` is the number of imports followed so far.
fn resolve<'a>(
    modules: &'a Modules,
    module: &Names,
    path: &[String],
    redirections: usize,
) -> Option<&'a Names> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let (mut target, names) = match path.first()?.as_str() {
        "crate" => (Names::new(), &path[1..]),
        "self" => (module.clone(), &path[1..]),
        "super" => (module[..module.len().checked_sub(supers)?].to_vec(), &path[supers..]),
        name => {
            let is_child = modules.contains_key(&[module.clone(), vec![name.to_owned()]].concat());
            if !is_child && !modules[module].imports.contains_key(name) {
                return None;
            }
            (module.clone(), path)
        }
    };
    for (index, name) in names.iter().enumerate() {
        if let Some(import) = modules.get(&target)?.imports.get(name).filter(|_| redirections < 8) {
            let path = [import.as_slice(), &names[index + 1..]].concat();
            return resolve(modules, &target, &path, redirections + 1);
        }
        target.push(name.clone());
        if !modules.contains_key(&target) {
            target.pop();
            break;
        }
    }
    modules.get_key_value(&target).map(|(name, _)| name)
}

/// Finds a cycle, and describes it.
fn find_cycle(dependencies: &BTreeMap<&Names, BTreeSet<&Names>>) -> Option<String> {
    let mut done = BTreeSet::new();
    dependencies.keys().find_map(|start| find_cycle_from(dependencies, start, &mut Vec::new(), &mut done))
}

/// Finds a cycle among the modules that `name` depends on. `path` holds the modules that led to `name`; `done` holds the
/// modules from which no cycle is reached.
fn find_cycle_from<'a>(
    dependencies: &BTreeMap<&'a Names, BTreeSet<&'a Names>>,
    name: &'a Names,
    path: &mut Vec<&'a Names>,
    done: &mut BTreeSet<&'a Names>,
) -> Option<String> {
    if let Some(start) = path.iter().position(|earlier| *earlier == name) {
        let cycle = path[start..].iter().chain([&name]).map(|name| format!("crate::{}", name.join("::")));
        return Some(cycle.collect::<Vec<_>>().join(" -> "));
    }
    if done.contains(name) {
        return None;
    }
    path.push(name);
    let found = dependencies[name].iter().find_map(|next| find_cycle_from(dependencies, next, path, done));
    path.pop();
    done.insert(name);
    found
}
