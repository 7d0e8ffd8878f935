//! The API in OpenAPI 3.1, written from the requests themselves: their fields are the parameters or the body, their doc
//! comments the words.

use std::any::type_name;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{PROBLEM, Problem};
use crate::operations::{AdminRequest, AdminRoute};

/// What stands above the routes.
const ABOUT: &str = "What the program's own commands and operator page ask, for other programs. A reading needs a token that \
                     may read or act, everything else one that may act. docs/API.md tells more.";

/// The statuses of refusals, and what each means.
const REFUSALS: [(&str, &str); 9] = [
    ("400", "The parameters cannot be read, or make no sense."),
    ("401", "No token, or a wrong one."),
    ("403", "The token may read only."),
    ("404", "What the request names does not exist."),
    ("409", "This process, or the present state of the thing, does not allow it; or the same key is under way."),
    ("413", "The body is too large."),
    ("415", "The body is not announced as application/json."),
    ("422", "The body is not of the right form, or the key came with another request before."),
    ("502", "NICE or the recording store did not answer as it should. Try again."),
];

/// The catalog, the queue or the local state, in words.
const UNAVAILABLE: &str = "The catalog, the queue or the local state did not answer. Try again.";

/// A route, and the forms of its request and its answer.
pub(super) struct DescribedRoute {
    name: String,
    route: AdminRoute,
    is_paged: bool,
    request: Value,
    answer: Value,
    parts: Vec<(String, Value)>,
}

impl DescribedRoute {
    /// The route of a request.
    pub(super) fn of<R: AdminRequest>() -> Self {
        let mut forms = Vec::new();
        R::schemas(&mut forms);
        R::Answer::schemas(&mut forms);
        let mut parts: Vec<_> = forms.iter().map(|(name, form)| (name.clone(), written(form))).collect();
        let mut answer = written(&R::Answer::schema());
        parts.extend(take_named(&mut answer, type_name::<R::Answer>()));
        Self {
            name: R::name().into_owned(),
            route: R::ROUTE,
            is_paged: R::IS_PAGED,
            request: written(&R::schema()),
            answer,
            parts,
        }
    }

    fn is_act(&self) -> bool {
        !self.route.method.is_safe()
    }

    fn operation(&self) -> Value {
        let words = self.request["description"].as_str().unwrap_or_default().replace('\n', " ");
        let (summary, more) = words.split_once(". ").unwrap_or((words.trim_end_matches('.'), ""));
        let mut operation = json!({
            "operationId": self.name,
            "summary": summary,
            "security": if self.is_act() { json!([{ "act": [] }]) } else { json!([{ "read": [] }, { "act": [] }]) },
            "parameters": self.parameters(),
            "responses": self.responses(),
        });
        if !more.is_empty() {
            operation["description"] = more.into();
        }
        if self.route.is_body {
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": self.request } } });
        }
        operation
    }

    fn parameters(&self) -> Vec<Value> {
        let mut parameters = Vec::new();
        let fields = self.request["properties"].as_object().filter(|_| !self.route.is_body);
        for (name, form) in fields.into_iter().flatten() {
            let is_in_path = self.route.path.contains(&format!("{{{name}}}"));
            let is_required = self.request["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
            let schema = never_null(form.clone());
            let words = [form, &schema].into_iter().find_map(|form| form.get("description")).cloned();
            let mut parameter = json!({
                "name": name,
                "in": if is_in_path { "path" } else { "query" },
                "required": is_in_path || is_required,
                "schema": schema,
            });
            if let Some(words) = words {
                parameter["description"] = words;
            }
            parameters.push(parameter);
        }
        let shared = [("Limit", self.is_paged), ("Cursor", self.is_paged), ("IdempotencyKey", self.is_act())];
        let shared = shared.iter().filter(|(_, is_taken)| *is_taken);
        parameters.extend(shared.map(|(name, _)| json!({ "$ref": format!("#/components/parameters/{name}") })));
        parameters
    }

    fn responses(&self) -> Map<String, Value> {
        let mut answer = json!({
            "description": "The answer.",
            "content": { "application/json": { "schema": self.answer } },
        });
        if self.is_paged {
            answer["headers"]["Link"] = json!({ "$ref": "#/components/headers/Link" });
        }
        let mut responses = Map::from_iter([("200".to_owned(), answer)]);
        for (status, _) in REFUSALS {
            let comes = match status {
                "403" | "422" => self.is_act(),
                "413" => self.is_act(),
                "415" => self.route.is_body,
                _ => true,
            };
            if comes {
                responses.insert(status.to_owned(), refusal(status));
            }
        }
        responses.insert("503".to_owned(), refusal("503"));
        responses
    }
}

/// The description of these routes.
pub(super) fn document(routes: &[DescribedRoute]) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut schemas = Map::from_iter([(Problem::name().into_owned(), written(&Problem::schema()))]);
    for route in routes {
        let methods = paths.entry(route.route.path).or_default();
        methods.insert(route.route.method.as_str().to_lowercase(), route.operation());
        schemas.extend(route.parts.iter().cloned());
    }
    let refusals = REFUSALS.into_iter().chain([("503", UNAVAILABLE)]);
    let told = |(status, words): (&str, &str)| {
        let content = json!({ PROBLEM: { "schema": { "$ref": "#/components/schemas/Problem" } } });
        (format!("Status{status}"), json!({ "description": words, "content": content }))
    };
    let bearer = |words: &str| json!({ "type": "http", "scheme": "bearer", "description": words });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "nice-knovvu admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/api/v1" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": refusals.map(told).collect::<Map<_, _>>(),
            "parameters": {
                "Limit": parameter("limit", "query", "The most items in this page.", json!({
                    "type": "integer", "minimum": 1, "maximum": crate::operations::paging::MOST,
                    "default": crate::operations::paging::PRESET,
                })),
                "Cursor": parameter("cursor", "query", "Where the page begins: take it from `Link`.", json!({
                    "type": "string", "pattern": "^([0-9a-f]{2})+$", "maxLength": 200,
                })),
                "IdempotencyKey": parameter("Idempotency-Key", "header", "Chosen by who asks. The same request with \
                    the same key is answered as the first time, and does nothing again.", json!({
                    "type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 255,
                })),
            },
            "headers": {
                "Link": {
                    "description": "The next page, as `<…>; rel=\"next\"`; absent on the last one.",
                    "schema": { "type": "string" },
                },
            },
            "securitySchemes": {
                "read": bearer("`[admin] read_token`: may read."),
                "act": bearer("`[admin] act_token`, or the token in admin.json in the state directory: may read and act."),
            },
        },
    })
}

fn parameter(name: &str, place: &str, words: &str, schema: Value) -> Value {
    json!({ "name": name, "in": place, "required": false, "description": words, "schema": schema })
}

fn refusal(status: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/Status{status}") })
}

fn written(form: &RefOr<Schema>) -> Value {
    let mut form = serde_json::to_value(form).expect("a schema is JSON");
    name_unsigned(&mut form);
    form
}

/// The derive macro calls a `u64` an int64, which ends at half of it.
fn name_unsigned(form: &mut Value) {
    match form {
        Value::Object(fields) => {
            let is_unsigned = fields.get("minimum").is_some_and(|least| least == 0);
            match fields.get_mut("format").filter(|_| is_unsigned) {
                Some(format) if format == "int64" => *format = "uint64".into(),
                Some(format) if format == "int32" => *format = "uint32".into(),
                _ => {}
            }
            fields.values_mut().for_each(name_unsigned);
        }
        Value::Array(items) => items.iter_mut().for_each(name_unsigned),
        _ => {}
    }
}

/// Puts a name in the place of an answer's type, which stands alone, or in a list, or where there may be none; its form
/// goes among the others.
fn take_named(answer: &mut Value, rust_type: &str) -> Option<(String, Value)> {
    let name = rust_type.rsplit("::").next()?.trim_end_matches('>');
    let is_named = |form: &Value| form["properties"].is_object() || form["allOf"].is_array();
    let place = ["", "/items", "/oneOf/1"].into_iter().find(|place| answer.pointer(place).is_some_and(is_named))?;
    let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
    Some((name.to_owned(), std::mem::replace(answer.pointer_mut(place)?, reference)))
}

/// A parameter is there or not; it is never null.
fn never_null(mut form: Value) -> Value {
    if let Some(kinds) = form["type"].as_array()
        && let Some(kind) = kinds.iter().find(|kind| **kind != "null").cloned()
    {
        form["type"] = kind;
    }
    let choices = form["oneOf"].as_array().into_iter().flatten();
    let choices: Vec<_> = choices.filter(|choice| choice["type"] != "null").cloned().collect();
    match <[Value; 1]>::try_from(choices) {
        Ok([only]) => only,
        Err(_) => {
            if let Some(fields) = form.as_object_mut() {
                fields.remove("description");
                fields.retain(|_, value| !value.is_null());
            }
            form
        }
    }
}
