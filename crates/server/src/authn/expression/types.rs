//! What an expression comes to, and what does not fit together in it, as CEL's checker tells: the types of the variables are
//! known, of claims that they are anything. Evaluates nothing. Where a type is not known, everything fits.

use std::fmt;
use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo, operators};

use super::{About, is_name, located};

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Null,
    Any,
    /// Of an element that there is none of: fits everything, and becomes what it is put together with.
    Free,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Object(&'static Object),
    Optional(Arc<Type>),
    /// The type of types.
    Meta(Arc<Type>),
}

/// A type with fields.
#[derive(Debug, PartialEq)]
pub struct Object {
    name: &'static str,
    fields: &'static [(&'static str, Field)],
}

#[derive(Debug, PartialEq)]
enum Field {
    Text,
    Texts,
    TextLists,
    Object(&'static Object),
    Objects(&'static Object),
}

static USER: Object = Object {
    name: "kubernetes.UserInfo",
    fields: &[("username", Field::Text), ("uid", Field::Text), ("groups", Field::Texts), ("extra", Field::TextLists)],
};

static REQUEST: Object = Object {
    name: "kubernetes.SubjectAccessReviewSpec",
    fields: &[
        ("resourceAttributes", Field::Object(&RESOURCE)),
        ("nonResourceAttributes", Field::Object(&PATH)),
        ("user", Field::Text),
        ("groups", Field::Texts),
        ("extra", Field::TextLists),
        ("uid", Field::Text),
    ],
};

static RESOURCE: Object = Object {
    name: "kubernetes.ResourceAttributes",
    fields: &[
        ("namespace", Field::Text),
        ("verb", Field::Text),
        ("group", Field::Text),
        ("version", Field::Text),
        ("resource", Field::Text),
        ("subresource", Field::Text),
        ("name", Field::Text),
        ("fieldSelector", Field::Object(&FIELDS)),
        ("labelSelector", Field::Object(&LABELS)),
    ],
};

static PATH: Object =
    Object { name: "kubernetes.NonResourceAttributes", fields: &[("path", Field::Text), ("verb", Field::Text)] };

static FIELDS: Object = Object { name: "kubernetes.FieldSelectorAttributes", fields: SELECTOR };

static LABELS: Object = Object { name: "kubernetes.LabelSelectorAttributes", fields: SELECTOR };

const SELECTOR: &[(&str, Field)] = &[("rawSelector", Field::Text), ("requirements", Field::Objects(&TERM))];

static TERM: Object = Object {
    name: "kubernetes.SelectorRequirement",
    fields: &[("key", Field::Text), ("operator", Field::Text), ("values", Field::Texts)],
};

impl Field {
    fn type_of(&self) -> Type {
        match self {
            Field::Text => Type::Text,
            Field::Texts => Type::list(Type::Text),
            Field::TextLists => Type::map(Type::Text, Type::list(Type::Text)),
            Field::Object(object) => Type::Object(object),
            Field::Objects(object) => Type::list(Type::Object(object)),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::Text => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Null => f.write_str("null_type"),
            Type::Any | Type::Free => f.write_str("dyn"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(of) => write!(f, "map({}, {})", of.0, of.1),
            Type::Object(object) => f.write_str(object.name),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Meta(of) => write!(f, "type({of})"),
        }
    }
}

impl Type {
    fn list(of: Type) -> Type {
        Type::List(Arc::new(of))
    }

    fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    fn is_known(&self) -> bool {
        !matches!(self, Type::Any | Type::Free)
    }

    fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double)
    }

    /// Whether values of the two can be compared, or stand in one list.
    fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (one, other) if !one.is_known() || !other.is_known() => true,
            (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => one.fits(other),
            (Type::Map(one), Type::Map(other)) => one.0.fits(&other.0) && one.1.fits(&other.1),
            (Type::Null, Type::Object(_) | Type::Optional(_)) | (Type::Object(_) | Type::Optional(_), Type::Null) => {
                true
            }
            (Type::Meta(_), Type::Meta(_)) => true,
            (one, other) => one == other,
        }
    }

    /// What is both.
    fn with(self, other: Type) -> Type {
        match (self, other) {
            (Type::Free, other) | (other, Type::Free) => other,
            (Type::Any, _) | (_, Type::Any) => Type::Any,
            (Type::List(one), Type::List(other)) => Type::list((*one).clone().with((*other).clone())),
            (Type::Optional(one), Type::Optional(other)) => Type::optional((*one).clone().with((*other).clone())),
            (Type::Map(one), Type::Map(other)) => {
                Type::map(one.0.clone().with(other.0.clone()), one.1.clone().with(other.1.clone()))
            }
            (Type::Null, other) => other,
            (one, _) => one,
        }
    }
}

/// What an expression comes to.
///
/// # Errors
/// What does not fit together, each with its place.
pub fn check(tree: &IdedExpr, about: About, source: &SourceInfo) -> Result<Type, Vec<String>> {
    let mut types = Types { source, about, locals: Vec::new(), errors: Vec::new() };
    let found = types.of(tree);
    if types.errors.is_empty() { Ok(found) } else { Err(types.errors) }
}

struct Types<'a> {
    source: &'a SourceInfo,
    about: About,
    /// The variables of the loops that one is in, and what they hold.
    locals: Vec<(String, Type)>,
    errors: Vec<String>,
}

impl Types<'_> {
    fn of(&mut self, tree: &IdedExpr) -> Type {
        match &tree.expr {
            Expr::Unspecified | Expr::Struct(_) => Type::Any,
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::Text,
                LiteralValue::UInt(_) => Type::Uint,
            },
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let of = self.of(&select.operand);
                let field = self.field(tree.id, &of, &select.field);
                if select.test { Type::Bool } else { field }
            }
            Expr::List(list) => {
                let mut element = Type::Free;
                for item in &list.elements {
                    element = self.another(element, item);
                }
                Type::list(element)
            }
            Expr::Map(map) => {
                let (mut key, mut value) = (Type::Free, Type::Free);
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        key = self.another(key, &entry.key);
                        value = self.another(value, &entry.value);
                    }
                }
                Type::map(key, value)
            }
            Expr::Comprehension(each) => self.each(each),
            Expr::Call(call) => self.call(tree, call),
        }
    }

    fn variable(&self, name: &str) -> Type {
        if let Some((_, of)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return of.clone();
        }
        if name != self.about.name() {
            // The name of a type.
            return Type::Meta(Arc::new(Type::Any));
        }
        match self.about {
            About::Claims => Type::map(Type::Text, Type::Any),
            About::User => Type::Object(&USER),
            About::Request => Type::Object(&REQUEST),
        }
    }

    /// One more element of a list, or of the keys or values of a map.
    fn another(&mut self, before: Type, item: &IdedExpr) -> Type {
        let of = self.of(item);
        if !before.fits(&of) {
            self.error(item.id, &format!("expected type '{before}' but found '{of}'"));
        }
        before.with(of)
    }

    fn field(&mut self, id: u64, of: &Type, name: &str) -> Type {
        match of {
            Type::Object(object) => match object.fields.iter().find(|(field, _)| *field == name) {
                Some((_, field)) => field.type_of(),
                None => {
                    self.error(id, &format!("undefined field '{name}'"));
                    Type::Any
                }
            },
            Type::Map(of) => of.1.clone(),
            // What may not be there has fields that may not be there.
            Type::Optional(of) => Type::optional(self.field(id, &of.clone(), name)),
            of if !of.is_known() => Type::Any,
            of => {
                self.error(id, &format!("type '{of}' does not support field selection"));
                Type::Any
            }
        }
    }

    fn each(&mut self, each: &ComprehensionExpr) -> Type {
        let (key, element) = match self.of(&each.iter_range) {
            Type::List(of) => (Type::Int, (*of).clone()),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            _ => (Type::Any, Type::Any),
        };
        let is_map = matches!(&key, Type::Text);
        let found = self.of(&each.accu_init);
        let known = self.locals.len();
        match &each.iter_var2 {
            None => self.locals.push((each.iter_var.clone(), if is_map { key } else { element })),
            Some(second) => {
                self.locals.push((each.iter_var.clone(), key));
                self.locals.push((second.clone(), element));
            }
        }
        self.locals.push((each.accu_var.clone(), found.clone()));
        self.of(&each.loop_cond);
        let found = found.with(self.of(&each.loop_step));
        self.locals.push((each.accu_var.clone(), found));
        let result = self.of(&each.result);
        self.locals.truncate(known);
        result
    }

    fn call(&mut self, tree: &IdedExpr, call: &CallExpr) -> Type {
        // The namespace of a function is no value.
        let target =
            call.target.as_deref().filter(|target| !is_name(target, "optional") && !is_name(target, "strings"));
        let target = target.map(|target| self.of(target));
        let name = call.func_name.as_str();
        if let (operators::OPT_SELECT, [operand, named]) = (name, call.args.as_slice())
            && let Expr::Literal(LiteralValue::String(field)) = &named.expr
        {
            let of = self.of(operand);
            let of = if let Type::Optional(of) = of { (*of).clone() } else { of };
            return Type::optional(self.field(tree.id, &of, field.inner()));
        }
        let args: Vec<Type> = call.args.iter().map(|arg| self.of(arg)).collect();
        let found = match (target, args.as_slice()) {
            (None, [of]) => self.unary(name, of),
            (None, [one, other]) => self.binary(call, one, other),
            (None, [condition, one, other]) if name == operators::CONDITIONAL => {
                (Type::Bool.fits(condition) && one.fits(other)).then(|| one.clone().with(other.clone()))
            }
            (Some(target), args) => method(name, &target, args),
            (None, _) => Some(result(name)),
        };
        found.unwrap_or_else(|| {
            let shown = args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let on = call.target.as_deref().map(|target| format!("{}.", self.quiet(target))).unwrap_or_default();
            self.error(tree.id, &format!("found no matching overload for '{name}' applied to '{on}({shown})'"));
            Type::Any
        })
    }

    /// The type of what was looked at before.
    fn quiet(&mut self, tree: &IdedExpr) -> Type {
        let known = self.errors.len();
        let found = self.of(tree);
        self.errors.truncate(known);
        found
    }

    fn unary(&mut self, name: &str, of: &Type) -> Option<Type> {
        match name {
            operators::LOGICAL_NOT => Type::Bool.fits(of).then_some(Type::Bool),
            operators::NEGATE => (!of.is_known() || matches!(of, Type::Int | Type::Double)).then(|| of.clone()),
            "type" => Some(Type::Meta(Arc::new(of.clone()))),
            "of" | "ofNonZeroValue" | "optional.of" | "optional.ofNonZeroValue" => Some(Type::optional(of.clone())),
            name => Some(result(name)),
        }
    }

    fn binary(&mut self, call: &CallExpr, one: &Type, other: &Type) -> Option<Type> {
        let both_known = one.is_known() && other.is_known();
        match call.func_name.as_str() {
            operators::EQUALS | operators::NOT_EQUALS => one.fits(other).then_some(Type::Bool),
            operators::LOGICAL_AND | operators::LOGICAL_OR => {
                for (of, arg) in [one, other].into_iter().zip(&call.args) {
                    if !Type::Bool.fits(of) {
                        self.error(arg.id, &format!("expected type 'bool' but found '{of}'"));
                    }
                }
                Some(Type::Bool)
            }
            operators::GREATER | operators::GREATER_EQUALS | operators::LESS | operators::LESS_EQUALS => {
                let ordered = |of: &Type| matches!(of, Type::Bool | Type::Text | Type::Bytes);
                let fits = (one.is_number() && other.is_number()) || (one == other && ordered(one));
                (!both_known || fits).then_some(Type::Bool)
            }
            operators::IN => match other {
                Type::List(of) => of.fits(one).then_some(Type::Bool),
                Type::Map(of) => of.0.fits(one).then_some(Type::Bool),
                of => (!of.is_known()).then_some(Type::Bool),
            },
            operators::ADD => {
                let adds = |of: &Type| of.is_number() || matches!(of, Type::Text | Type::Bytes | Type::List(_));
                let fits = one.fits(other) && [one, other].into_iter().all(|of| adds(of) || !of.is_known());
                fits.then(|| one.clone().with(other.clone()))
            }
            operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO => {
                let fits = one == other && one.is_number();
                (!both_known || fits).then(|| one.clone().with(other.clone()))
            }
            operators::INDEX | operators::OPT_INDEX => {
                let is_optional = call.func_name == operators::OPT_INDEX || matches!(one, Type::Optional(_));
                let of = if let Type::Optional(of) = one { of } else { one };
                let found = match of {
                    Type::List(of) => Type::Int.fits(other).then(|| (**of).clone()),
                    Type::Map(of) => of.0.fits(other).then(|| of.1.clone()),
                    of => (!of.is_known()).then_some(Type::Any),
                };
                found.map(|found| if is_optional { Type::optional(found) } else { found })
            }
            name => Some(result(name)),
        }
    }

    fn error(&mut self, id: u64, what: &str) {
        self.errors.push(located(self.source, id, what));
    }
}

/// What a function of a value makes of it; nothing where there is no such function for it.
fn method(name: &str, target: &Type, args: &[Type]) -> Option<Type> {
    match (name, args) {
        ("contains" | "endsWith" | "startsWith" | "matches", [text]) => {
            (Type::Text.fits(target) && Type::Text.fits(text)).then_some(Type::Bool)
        }
        ("orValue", [other]) => match target {
            Type::Optional(of) => of.fits(other).then(|| (**of).clone().with(other.clone())),
            _ => Some(Type::Any),
        },
        ("or", [other]) => Some(target.clone().with(other.clone())),
        ("value", []) => match target {
            Type::Optional(of) => Some((**of).clone()),
            _ => Some(Type::Any),
        },
        (name, _) => Some(result(name)),
    }
}

/// What a function makes, whatever it is given.
fn result(name: &str) -> Type {
    match name {
        "bool" | "contains" | "endsWith" | "hasValue" | "matches" | "startsWith" | operators::NOT_STRICTLY_FALSE => {
            Type::Bool
        }
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" | "size" | "indexOf" | "lastIndexOf" => Type::Int,
        "uint" => Type::Uint,
        "charAt" | "format" | "join" | "lowerAscii" | "quote" | "replace" | "string" | "strings.quote"
        | "substring" | "trim" | "upperAscii" => Type::Text,
        "split" => Type::list(Type::Text),
        "none" | "optional.none" => Type::optional(Type::Free),
        _ => Type::Any,
    }
}
