//! A struct of the manifest, its reading and its schema, from one listing.
//!
//! Owns: [`record`], the one source of truth for keys, types, defaults and documentation. Promises: a key that is in the
//! schema is read, and the other way round. Never: knows a key.

/// Makes a struct, its reading, and (through `schemars`) its schema of one listing. `[open]` tolerates unknown keys;
/// `checked by` names a function that sees the whole value and reports what its parts can't know;
/// with `=> ANYWAY` it sees it even when parts were mistaken, with their defaults in place.
macro_rules! record {
    (@get $table:ident $sink:ident $key:expr;) => { $table.need($key, $sink) };
    (@get $table:ident $sink:ident $key:expr; $default:expr) => { $table.or($key, $sink, || $default) };
    (@part $field:ident;) => { $field? };
    (@part $field:ident; $default:expr) => { $field.unwrap_or_else(|| $default) };
    ($(#[$meta:meta])* pub struct $($rest:tt)+) => {
        crate::record::record! { @body { $(#[$meta])* #[serde(deny_unknown_fields)] } table $($rest)+ }
    };
    ($(#[$meta:meta])* pub [open] struct $($rest:tt)+) => {
        crate::record::record! { @body { $(#[$meta])* } loose $($rest)+ }
    };
    (@body { $($meta:tt)* } $open:ident $name:ident $(checked by $check:path $(=> $anyway:ident)?)? {
        $($(#[$fmeta:meta])* $field:ident : $ty:ty $(= $default:expr)?),+ $(,)?
    }) => {
        #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
        $($meta)*
        #[schemars(transform = crate::record::defaults_are_optional)]
        pub struct $name {
            $($(#[$fmeta])* $(#[schemars(extend("default" = crate::record::the::<$ty>($default)))])? pub $field: $ty),+
        }

        impl crate::decode::Decode for $name {
            fn decode(view: crate::decode::View<'_, '_>, sink: &mut crate::decode::Sink) -> Option<Self> {
                let table = view.$open(sink, &[$(stringify!($field)),+])?;
                $(let $field: Option<$ty> = crate::record::record!(@get table sink stringify!($field); $($default)?);)+
                let sound = [$($field.is_some()),+].iter().all(|good| *good);
                $(let $field = crate::record::record!(@part $field; $($default)?);)+
                let value = $name { $($field),+ };
                $(if sound $(|| crate::record::$anyway)? { $check(&value, view, sink)?; })?
                sound.then_some(value)
            }
        }
    };
}
pub(crate) use record;

/// Says that a check is to be made even when parts were mistaken.
pub(crate) const ANYWAY: bool = true;

/// Gives a default its type.
pub(crate) fn the<T>(value: T) -> T {
    value
}

/// In a schema, a key with a default need not be given, and a default of nothing need not be told.
pub(crate) fn defaults_are_optional(schema: &mut schemars::Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    let mut optional: Vec<String> = Vec::new();
    if let Some(serde_json::Value::Object(properties)) = object.get_mut("properties") {
        for (name, property) in properties {
            let Some(property) = property.as_object_mut() else {
                continue;
            };
            if property.contains_key("default") {
                optional.push(name.clone());
            }
            if property
                .get("default")
                .is_some_and(serde_json::Value::is_null)
            {
                property.remove("default");
            }
        }
    }
    if let Some(serde_json::Value::Array(required)) = object.get_mut("required") {
        required.retain(|name| !optional.iter().any(|o| name == o));
        if required.is_empty() {
            object.remove("required");
        }
    }
}
