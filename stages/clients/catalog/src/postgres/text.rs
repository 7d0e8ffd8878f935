//! Texts as PostgreSQL takes them: it has no NUL, neither in `text` nor in `jsonb`, so that NULs are left out.

use std::borrow::Cow;

use serde_json::Value;

/// A text without NUL.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "")
}

/// A JSON value without NUL in its texts and names.
pub(super) fn json(value: &Value) -> Value {
    without_nul(value).into_owned()
}

fn without_nul(value: &Value) -> Cow<'_, Value> {
    if !has_nul(value) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(match value {
        Value::String(string) => Value::String(text(string)),
        Value::Array(values) => values.iter().map(json).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (text(name), json(value))).collect(),
        other => other.clone(),
    })
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(string) => string.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// About how many bytes a JSON value takes on its way.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(string) => string.len() + 2,
        Value::Array(values) => values.iter().map(weight).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value) + 4).sum::<usize>() + 2,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn nul_is_left_out_of_texts_and_names_at_any_depth() {
        let odd = json!({ "a\0b": ["\0", { "c": "d\0" }, 1, null] });
        assert_eq!(super::json(&odd), json!({ "ab": ["", { "c": "d" }, 1, null] }));
    }
}
