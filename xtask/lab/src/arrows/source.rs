//! The modules of a crate as its sources have them: what each defines, imports and names.
//!
//! Resolves no types: a method call says nothing about where the method is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::tokens::{self, Token};

/// Names from the root of the crate down; the root is the empty one.
pub(super) type ModPath = Vec<String>;

/// A crate.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) modules: BTreeMap<ModPath, Module>,
}

/// One module, whether it has a file of its own or not.
#[derive(Default)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    pub(super) uses: Vec<Use>,
    /// Items by name, but for modules.
    pub(super) items: BTreeSet<String>,
    /// Paths in code, and the first line that each is on.
    pub(super) paths: BTreeMap<Vec<String>, usize>,
    pub(super) strings: Vec<(String, usize)>,
}

/// A path as written, and the line that it is on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// One name that a `use` brings.
#[derive(Debug, PartialEq)]
pub(super) struct Use {
    /// `pub`, `pub(super)` …: others may have it from here.
    pub(super) handed_on: bool,
    /// Where it comes from.
    pub(super) from: Named,
    /// What it is called here; `None` for all that is there (`*`).
    pub(super) name: Option<String>,
}

impl Sources {
    /// Reads the crate whose root is the file `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut sources = Self::default();
        let dir = root.parent().context("a crate's root is in a folder")?;
        sources.file(Vec::new(), root, dir)?;
        Ok(sources)
    }

    /// A crate of one file.
    pub(super) fn of(text: &str) -> Result<Self> {
        let mut sources = Self::default();
        sources.modules.insert(Vec::new(), Module::default());
        sources.body(&Vec::new(), &tokens::read(text)?, Path::new(""))?;
        Ok(sources)
    }

    fn file(&mut self, at: ModPath, file: &Path, children: &Path) -> Result<()> {
        let name = || file.display().to_string();
        let text = fs::read_to_string(file).with_context(name)?;
        let tokens = tokens::read(&text).with_context(name)?;
        self.modules.insert(at.clone(), Module { file: file.to_owned(), ..Module::default() });
        self.body(&at, &tokens, children)
    }

    /// What is in a module; `children` is the folder of the modules below it.
    fn body(&mut self, at: &ModPath, mut tokens: &[Token], children: &Path) -> Result<()> {
        let mut module = self.modules.remove(at).unwrap_or_default();
        module.items(tokens);
        module.code(tokens);
        let file = module.file.clone();
        self.modules.insert(at.clone(), module);
        while let [first, rest @ ..] = tokens {
            if let ("mod", [Token::Name(name, _), rest @ ..]) = (first.name().unwrap_or(""), rest) {
                let below = [at.as_slice(), std::slice::from_ref(name)].concat();
                let children = children.join(name);
                match rest.first() {
                    Some(Token::Braces(inner)) => {
                        let module = Module { file: file.clone(), ..Module::default() };
                        self.modules.insert(below.clone(), module);
                        self.body(&below, inner, &children)?;
                    }
                    _ => self.file(below, &children.with_extension("rs"), &children)?,
                }
            }
            tokens = rest;
        }
        Ok(())
    }
}

const DEFINES: [&str; 8] = ["fn", "struct", "enum", "union", "const", "static", "type", "trait"];

impl Module {
    /// The items right in this module.
    fn items(&mut self, tokens: &[Token]) {
        let words = tokens.windows(2).filter_map(|pair| pair[0].name().zip(pair[1].name()));
        let items = words.filter(|(keyword, _)| DEFINES.contains(keyword));
        self.items.extend(items.map(|(_, name)| name.to_owned()));
        for triple in tokens.windows(3) {
            if let [Some("macro_rules"), None, Some(name)] =
                [0, 1, 2].map(|at: usize| triple[at].name())
            {
                self.items.insert(name.to_owned());
            }
        }
    }

    /// What is imported and named in code, in groups too, but not in modules below.
    fn code(&mut self, tokens: &[Token]) {
        let mut at = 0;
        let mut handed_on = false;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                Token::Name(word, _) if word == "mod" => {
                    let body = matches!(tokens.get(at + 1), Some(Token::Braces(_)));
                    at += if body { 2 } else { 1 };
                }
                Token::Name(word, _) if word == "pub" => {
                    handed_on = true;
                    if matches!(tokens.get(at), Some(Token::Group(_))) {
                        at += 1;
                    }
                    continue;
                }
                Token::Name(word, _) if word == "use" => {
                    let end = tokens[at..].iter().position(|token| *token == Token::Sign(';'));
                    let end = end.map_or(tokens.len(), |end| at + end);
                    self.tree(&[], &tokens[at..end], handed_on);
                    at = end;
                }
                Token::Name(first, line) => {
                    let mut path = vec![first.clone()];
                    while let (Some(Token::Below), Some(Token::Name(name, _))) =
                        (tokens.get(at), tokens.get(at + 1))
                    {
                        path.push(name.clone());
                        at += 2;
                    }
                    self.paths.entry(path).or_insert(*line);
                }
                // What follows goes on from a type, `<T>::name`.
                Token::Below => {
                    while matches!(tokens.get(at), Some(Token::Name(..) | Token::Below)) {
                        at += 1;
                    }
                }
                Token::Text(text, line) => self.strings.push((text.clone(), *line)),
                Token::Braces(inner) | Token::Group(inner) => self.code(inner),
                Token::Sign(_) => {}
            }
            handed_on = false;
        }
    }

    /// A tree of imports below `base`.
    fn tree(&mut self, base: &[String], tokens: &[Token], handed_on: bool) {
        for branch in tokens.split(|token| *token == Token::Sign(',')) {
            let mut path = base.to_vec();
            let mut name = None;
            let mut at = 0;
            let mut line = 0;
            let is_leaf = loop {
                match branch.get(at) {
                    Some(Token::Name(word, _)) if word == "as" => {
                        name = branch.get(at + 1).and_then(Token::name).map(str::to_owned);
                        break true;
                    }
                    Some(Token::Name(word, on)) => {
                        line = *on;
                        // `{self}`
                        if word != "self" || path.is_empty() {
                            path.push(word.clone());
                        }
                        name = path.last().cloned();
                    }
                    Some(Token::Below) => {}
                    Some(Token::Sign('*')) => {
                        name = None;
                        break true;
                    }
                    Some(Token::Braces(inner)) => {
                        self.tree(&path, inner, handed_on);
                        break false;
                    }
                    _ => break !branch.is_empty(),
                }
                at += 1;
            };
            if is_leaf {
                self.uses.push(Use { handed_on, from: Named { path, line }, name });
            }
        }
    }
}
