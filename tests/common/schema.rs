//! JSON Schema as far as docs/bench.schema.json uses it.

use serde_json::Value;

/// Checks `value` against `schema`; what is wrong, with where. Knows `$ref` to `$defs`, `type`, `const`, `enum`,
/// `properties`, `required`, `additionalProperties: false`, `items`, `minItems`, `minimum`; any other keyword is an error,
/// so that the schema cannot ask for more than is checked.
pub fn violations(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut out = Vec::new();
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, wanted) in keywords {
        let fits = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = wanted.as_str().and_then(|r| r.strip_prefix('#')).expect("a local reference");
                let target = root.pointer(pointer).expect("a reference to something");
                out.extend(violations(root, target, value, at));
                true
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|t| is(t, value)),
                one => is(one, value),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().is_some_and(|all| all.contains(value)),
            "minimum" => value.as_f64().is_none_or(|v| v >= wanted.as_f64().unwrap_or(f64::MAX)),
            "minItems" => {
                value.as_array().is_none_or(|v| v.len() as u64 >= wanted.as_u64().unwrap_or(u64::MAX))
            }
            "required" => {
                let names = wanted.as_array().expect("required is a list").iter();
                let missing = names.filter_map(Value::as_str).filter(|name| value.get(*name).is_none());
                out.extend(missing.map(|name| format!("{at}: {name} is missing")));
                true
            }
            "properties" => {
                for (name, schema) in wanted.as_object().expect("properties is an object") {
                    if let Some(value) = value.get(name) {
                        out.extend(violations(root, schema, value, &format!("{at}/{name}")));
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = keywords.get("properties").and_then(Value::as_object);
                let strange = value.as_object().into_iter().flat_map(|o| o.keys());
                let strange = strange.filter(|name| !known.is_some_and(|known| known.contains_key(*name)));
                out.extend(strange.map(|name| format!("{at}: {name} is not in the schema")));
                wanted == &Value::Bool(false)
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    out.extend(violations(root, wanted, item, &format!("{at}/{n}")));
                }
                true
            }
            other => panic!("{at}: the check knows no {other}"),
        };
        if !fits {
            out.push(format!("{at}: {value} is against {keyword} {wanted}"));
        }
    }
    out
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64() || value.is_i64(),
        other => panic!("unknown type {other:?}"),
    }
}
