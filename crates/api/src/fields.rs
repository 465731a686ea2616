//! Structs that are read from and written as an object with named fields, by a macro of this crate: what a client of the API must
//! have is so little that a code generator would take longer to compile than all of it. Knows no format.

/// Makes a struct that has a default one that is read: unknown fields are passed over, a missing one and `null` are the default.
/// With `written`, it is written too: a field behind `omit` where it is not empty, one behind `never` not at all.
///
/// ```
/// #[derive(Debug, Default, PartialEq)]
/// struct Port {
///     name: String,
///     container_port: u16,
/// }
/// api::fields!(Port, written { omit name: "name", container_port: "containerPort" });
///
/// let port: Port = serde_json::from_str(r#"{"containerPort": 80, "name": null, "protocol": "TCP"}"#).unwrap();
/// assert_eq!(port, Port { name: String::new(), container_port: 80 });
/// assert_eq!(serde_json::to_string(&port).unwrap(), r#"{"containerPort":80}"#);
/// ```
#[macro_export]
macro_rules! fields {
    ($type:ident, written { $($rule:tt)* }) => {
        $crate::fields!(@strip $type, [] $($rule)*);
        impl $crate::fields::serde_core::Serialize for $type {
            fn serialize<S: $crate::fields::serde_core::Serializer>(&self, out: S) -> ::std::result::Result<S::Ok, S::Error> {
                use $crate::fields::serde_core::ser::SerializeMap as _;
                let mut out = out.serialize_map(None)?;
                $crate::fields!(@write self, out, $($rule)*);
                out.end()
            }
        }
    };
    ($type:ident $(<$generic:ident $(: $bound:path)?>)?, read { $($field:ident: $name:literal),* $(,)? }) => {
        impl<'de, $($generic $(: $bound)?)?> $crate::fields::serde_core::Deserialize<'de> for $type $(<$generic>)? {
            fn deserialize<D: $crate::fields::serde_core::Deserializer<'de>>(input: D) -> ::std::result::Result<Self, D::Error> {
                use $crate::fields::serde_core::de;

                #[allow(non_camel_case_types)]
                enum Field { $($field,)* Other__ }

                struct Name;

                impl<'de> de::Visitor<'de> for Name {
                    type Value = Field;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str("a field's name")
                    }

                    fn visit_str<E: de::Error>(self, name: &str) -> ::std::result::Result<Field, E> {
                        Ok(match name {
                            $($name => Field::$field,)*
                            _ => Field::Other__,
                        })
                    }
                }

                impl<'de> de::DeserializeSeed<'de> for Name {
                    type Value = Field;

                    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> ::std::result::Result<Field, D::Error> {
                        input.deserialize_identifier(self)
                    }
                }

                struct Fields<T>(::std::marker::PhantomData<fn() -> T>);

                impl<'de, $($generic $(: $bound)?)?> de::Visitor<'de> for Fields<$type $(<$generic>)?> {
                    type Value = $type $(<$generic>)?;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str(concat!("an object of type ", stringify!($type)))
                    }

                    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> ::std::result::Result<Self::Value, A::Error> {
                        let mut out = Self::Value::default();
                        while let Some(name__) = map.next_key_seed(Name)? {
                            match name__ {
                                $(Field::$field => {
                                    // Go servers write `null` for an empty list or map.
                                    if let Some(value) = map.next_value()? {
                                        #[allow(unused_imports)]
                                        use $crate::fields::{Shrinks as _, Stays as _};
                                        out.$field = value;
                                        (&mut $crate::fields::Settled(&mut out.$field)).settle();
                                    }
                                })*
                                Field::Other__ => drop(map.next_value::<de::IgnoredAny>()?),
                            }
                        }
                        Ok(out)
                    }
                }

                input.deserialize_struct(stringify!($type), &[$($name),*], Fields(::std::marker::PhantomData))
            }
        }
    };
    // The rules of a list without the words about writing.
    (@strip $type:ident, [$($done:tt)*]) => {
        $crate::fields!($type, read { $($done)* });
    };
    (@strip $type:ident, [$($done:tt)*] omit $field:ident: $name:literal $(, $($rest:tt)*)?) => {
        $crate::fields!(@strip $type, [$($done)* $field: $name,] $($($rest)*)?);
    };
    (@strip $type:ident, [$($done:tt)*] never $field:ident: $name:literal $(, $($rest:tt)*)?) => {
        $crate::fields!(@strip $type, [$($done)* $field: $name,] $($($rest)*)?);
    };
    (@strip $type:ident, [$($done:tt)*] $field:ident: $name:literal $(, $($rest:tt)*)?) => {
        $crate::fields!(@strip $type, [$($done)* $field: $name,] $($($rest)*)?);
    };
    (@write $self:ident, $out:ident, ) => {};
    (@write $self:ident, $out:ident, omit $field:ident: $name:literal $(, $($rest:tt)*)?) => {
        if !$crate::fields::Empty::is_empty(&$self.$field) {
            $out.serialize_entry($name, &$self.$field)?;
        }
        $crate::fields!(@write $self, $out, $($($rest)*)?);
    };
    (@write $self:ident, $out:ident, never $field:ident: $name:literal $(, $($rest:tt)*)?) => {
        $crate::fields!(@write $self, $out, $($($rest)*)?);
    };
    (@write $self:ident, $out:ident, $field:ident: $name:literal $(, $($rest:tt)*)?) => {
        $out.serialize_entry($name, &$self.$field)?;
        $crate::fields!(@write $self, $out, $($($rest)*)?);
    };
}

#[doc(hidden)]
pub use serde_core;

/// A field that has been read. A list of it gives back the room that it took for more entries than came, which is three
/// quarters of what a list of one takes; anything else stays as it is. Which of the two it is, the method's resolution finds.
#[doc(hidden)]
pub struct Settled<'a, T>(pub &'a mut T);

#[doc(hidden)]
pub trait Shrinks {
    fn settle(&mut self);
}

impl<T> Shrinks for Settled<'_, Vec<T>> {
    fn settle(&mut self) {
        self.0.shrink_to_fit();
    }
}

#[doc(hidden)]
pub trait Stays {
    fn settle(&mut self) {}
}

impl<T> Stays for &mut Settled<'_, T> {}

/// What Go leaves out where it is told `omitempty`.
pub trait Empty {
    /// Whether this is such a value.
    fn is_empty(&self) -> bool;
}

impl Empty for String {
    fn is_empty(&self) -> bool {
        String::is_empty(self)
    }
}

impl<T> Empty for Vec<T> {
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

impl<T> Empty for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

impl Empty for i64 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

impl Empty for u32 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}
