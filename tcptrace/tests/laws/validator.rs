//! Lines of JSON against `docs/tcptrace.schema.json`, on which the programs that read them rely.

use std::{collections::BTreeSet, sync::OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

struct Kind {
    /// The `type` of its objects.
    r#type: String,
    validator: Validator,
}

/// A validator of each kind of line, so that an error is about the kind that was meant.
fn kinds() -> &'static [Kind] {
    static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let text = include_str!("../../../docs/tcptrace.schema.json");
        let schema: Value = serde_json::from_str(text).unwrap();
        jsonschema::meta::validate(&schema).unwrap();
        let of = |one: &Value| {
            let name = one["$ref"].as_str().unwrap();
            let r#type = &schema.pointer(&name[1..]).unwrap()["properties"]["type"]["const"];
            let alone = json!({
                "$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": name
            });
            Kind {
                r#type: r#type.as_str().unwrap().to_owned(),
                validator: jsonschema::validator_for(&alone).unwrap(),
            }
        };
        schema["oneOf"].as_array().unwrap().iter().map(of).collect()
    })
}

/// The types that the schema describes.
#[allow(dead_code, reason = "one of the two test binaries asks for them")]
pub fn types() -> BTreeSet<&'static str> {
    kinds().iter().map(|kind| kind.r#type.as_str()).collect()
}

/// Wants `line` to be what the schema says, and returns its type.
#[track_caller]
pub fn check(line: &str) -> String {
    let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let named = object["type"].as_str().unwrap_or_else(|| panic!("no type: {line}"));
    let kinds: Vec<_> = kinds().iter().filter(|kind| kind.r#type == named).collect();
    assert!(!kinds.is_empty(), "docs/tcptrace.schema.json has no type {named:?}: {line}");
    if !kinds.iter().any(|kind| kind.validator.is_valid(&object)) {
        let errors = |kind: &&Kind| -> Vec<String> {
            let errors = kind.validator.iter_errors(&object);
            errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
        };
        let least = kinds.iter().map(errors).min_by_key(Vec::len).unwrap_or_default();
        panic!("not as docs/tcptrace.schema.json says: {least:#?}\n{line}");
    }
    named.to_owned()
}
