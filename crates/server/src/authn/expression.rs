//! CEL expressions about the claims of a token or about a user: compiled once, when the configuration is read, and evaluated
//! within a limit that is known before. Knows nothing of tokens and issuers; reads no clock.

mod types;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo, operators};
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, IdedExpr, Value as Cel};
use serde_json::Value;

use self::types::Type;
use super::User;

/// The steps that an evaluation may take at most, by an estimate that is never too low.
const STEPS_MAX: u64 = 10_000_000;
/// Bytes of text that are handled in one step.
const STEP_BYTES: u64 = 1024;
/// The longest expression.
const EXPRESSION_BYTES_MAX: usize = 64 << 10;
/// The characters in it that can nest one expression in another: reading and evaluating goes as deep as they are many.
const NESTING_MAX: usize = 400;

/// What an expression is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// `claims`: a map of text to anything.
    Claims,
    /// `user`: `username`, `uid`, `groups`, `extra`.
    User,
    /// `request`: the spec of a SubjectAccessReview.
    Request,
}

impl About {
    /// The variable that holds it.
    fn name(self) -> &'static str {
        match self {
            About::Claims => "claims",
            About::User => "user",
            About::Request => "request",
        }
    }
}

/// A compiled expression.
pub struct Expression {
    pub text: String,
    about: About,
    tree: IdedExpr,
    cost: Cost,
    /// What it comes to.
    kind: Type,
}

/// What the subject of expressions is, made once for all that are evaluated about it.
pub struct Subject {
    value: Cel,
    size: Size,
}

/// How large a subject is.
#[derive(Clone, Copy, Default)]
struct Size {
    values: u64,
    bytes: u64,
}

/// What makes an expression costly.
#[derive(Clone, Copy, Debug)]
struct Cost {
    nodes: u64,
    /// How deep loops are within each other.
    loops: u32,
    /// Operations that can make a list longer than any that the subject holds.
    additions: u64,
    /// Operations that can make a text as long as the subject times itself.
    replacements: u32,
    /// By how much texts can grow otherwise, all operations together.
    growth: u64,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The detail of an invalid value, in Kubernetes' words.
    pub fn compile(text: &str, about: About) -> Result<Expression, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("compilation failed: the expression has more than {EXPRESSION_BYTES_MAX} bytes"));
        }
        if text.bytes().filter(|byte| b"+-*/%.([{!?<>=&|".contains(byte)).count() > NESTING_MAX {
            return Err(format!("compilation failed: the expression has more than {NESTING_MAX} operators"));
        }
        let parsed = ENV.parser().parse_with_source_info(text);
        let (mut tree, source) = parsed.map_err(|errors| {
            format!("compilation failed: {}", errors.to_string().trim_end().replace("\n|", "\n |"))
        })?;
        let mut checker = Checker { source: &source, about, locals: Vec::new(), errors: Vec::new() };
        checker.check(&mut tree);
        if !checker.errors.is_empty() {
            return Err(format!("compilation failed: {}", checker.errors.join("\n")));
        }
        let kind = types::check(&tree, about, &source)
            .map_err(|errors| format!("compilation failed: {}", errors.join("\n")))?;
        let mut cost = Cost { nodes: 0, loops: 0, additions: 0, replacements: 0, growth: 1 };
        cost.add(&tree, 0);
        Ok(Expression { text: text.to_string(), about, tree, cost, kind })
    }

    /// The same for one that must be true or false.
    ///
    /// # Errors
    /// As [`Expression::compile`], and where it may be something else.
    pub fn compile_condition(text: &str, about: About) -> Result<Expression, String> {
        let compiled = Expression::compile(text, about)?;
        match (&compiled.kind, about) {
            (Type::Bool, _) => Ok(compiled),
            (other, About::Request) => Err(format!("must evaluate to bool but got {other}")),
            _ => Err("must evaluate to bool".into()),
        }
    }

    /// Whether it reads a field of its subject.
    pub fn reads(&self, field: &str) -> bool {
        let root = self.about.name();
        let mut found = false;
        walk(&self.tree, &mut |expr| match expr {
            Expr::Select(select) => found |= select.field == field && is_name(&select.operand, root),
            Expr::Call(call) if call.func_name == operators::OPT_SELECT => {
                if let [operand, name] = call.args.as_slice() {
                    found |= is_name(operand, root) && is_text(name, field);
                }
            }
            _ => {}
        });
        found
    }

    /// Whether it is true of a subject.
    ///
    /// # Errors
    /// Why it is neither true nor false.
    pub fn is_true(&self, subject: &Subject) -> Result<bool, String> {
        match self.evaluate(subject)? {
            Cel::Bool(is) => Ok(is),
            _ => Err(format!("expression '{}' eval result type should be bool", self.text)),
        }
    }

    /// What it makes of a subject.
    ///
    /// # Errors
    /// Why it makes nothing of it.
    pub fn evaluate(&self, subject: &Subject) -> Result<Cel, String> {
        let failed = |why: &str| format!("expression '{}' resulted in error: {why}", self.text);
        if self.cost.steps(subject.size) > STEPS_MAX {
            return Err(failed("operation cancelled: actual cost limit exceeded"));
        }
        let mut context = Context::with_env(ENV.clone());
        context.add_variable_from_value(self.about.name(), subject.value.clone());
        context.resolve(&self.tree).map_err(|error| {
            failed(&match error {
                ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
                ExecutionError::NoSuchOverload(_)
                | ExecutionError::UnsupportedBinaryOperator(..)
                | ExecutionError::UnsupportedIndex(..)
                | ExecutionError::UnsupportedTargetType { .. }
                | ExecutionError::NotSupportedAsMethod { .. }
                | ExecutionError::UnexpectedType { .. }
                | ExecutionError::ValuesNotComparable(..) => "no such overload".to_string(),
                ExecutionError::DivisionByZero(_) => "division by zero".to_string(),
                ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_string(),
                // What others say may show the values themselves.
                _ => "it cannot be evaluated".to_string(),
            })
        })
    }
}

impl Subject {
    pub fn claims(claims: &Value) -> Subject {
        Subject::of(claims)
    }

    pub fn of(value: &Value) -> Subject {
        Subject { value: to_cel(value), size: Size::of(value) }
    }

    pub fn user(user: &User) -> Subject {
        let value = serde_json::json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        Subject::of(&value)
    }
}

/// A text, or a list of texts without the empty ones, as lists of groups are given.
pub fn texts(value: &Cel) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_string();
    let all = match value {
        Cel::Null => Vec::new(),
        Cel::String(text) => vec![text.to_string()],
        Cel::List(items) => items
            .iter()
            .map(|item| match item {
                Cel::String(text) => Ok(text.to_string()),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // They name nothing that the standard library has; a clash would be one in the library, and leaves them out.
    let _ = env.add_extension(cel::extensions::strings);
    Arc::new(env)
});

/// The functions that there are, besides operators and macros.
const FUNCTIONS: [&str; 37] = [
    "bool",
    "bytes",
    "charAt",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "format",
    "hasValue",
    "indexOf",
    "int",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "none",
    "of",
    "ofNonZeroValue",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "quote",
    "replace",
    "reverse",
    "size",
    "split",
    "startsWith",
    "string",
    "strings.quote",
    "substring",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "value",
];

/// The names that stand for types.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "uint"];

/// Finds what is not there, and reads `a__dot__b` as the field `a.b`.
struct Checker<'a> {
    source: &'a SourceInfo,
    about: About,
    /// The variables of the loops that one is in.
    locals: Vec<String>,
    errors: Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, tree: &mut IdedExpr) {
        let id = tree.id;
        match &mut tree.expr {
            Expr::Ident(name) if !self.knows(name) => {
                let what = format!("undeclared reference to '{name}' (in container '')");
                self.error(id, &what);
            }
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
            Expr::Select(select) => {
                if let Some(name) = unescaped(&select.field) {
                    select.field = name;
                }
                self.check(&mut select.operand);
            }
            Expr::Call(call) => {
                let is_operator = !call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
                if !is_operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let what = format!("undeclared reference to '{}' (in container '')", call.func_name);
                    self.error(id, &what);
                }
                // The namespace of a function is no variable.
                let target = call.target.as_deref_mut().filter(|target| !is_name(target, "optional"));
                if let Some(target) = target.filter(|target| !is_name(target, "strings")) {
                    self.check(target);
                }
                let indexes = [operators::INDEX, operators::OPT_INDEX, operators::OPT_SELECT];
                let by_name = indexes.contains(&call.func_name.as_str());
                for (at, argument) in call.args.iter_mut().enumerate() {
                    if let (1, true, Expr::Literal(LiteralValue::String(text))) = (at, by_name, &argument.expr)
                        && let Some(name) = unescaped(text.inner())
                    {
                        argument.expr = Expr::Literal(LiteralValue::String(name.into()));
                    }
                    self.check(argument);
                }
            }
            Expr::List(list) => list.elements.iter_mut().for_each(|element| self.check(element)),
            Expr::Map(map) => self.entries(map.entries.iter_mut().map(|entry| &mut entry.expr)),
            Expr::Struct(object) => {
                let what = format!("undeclared reference to '{}' (in container '')", object.type_name);
                self.error(id, &what);
            }
            Expr::Comprehension(each) => {
                self.check(&mut each.iter_range);
                self.check(&mut each.accu_init);
                let known = self.locals.len();
                self.locals.push(each.accu_var.clone());
                self.locals.push(each.iter_var.clone());
                self.locals.extend(each.iter_var2.clone());
                self.check(&mut each.loop_cond);
                self.check(&mut each.loop_step);
                self.check(&mut each.result);
                self.locals.truncate(known);
            }
        }
    }

    fn entries<'e>(&mut self, entries: impl Iterator<Item = &'e mut EntryExpr>) {
        for entry in entries {
            match entry {
                EntryExpr::MapEntry(entry) => {
                    self.check(&mut entry.key);
                    self.check(&mut entry.value);
                }
                EntryExpr::StructField(field) => self.check(&mut field.value),
            }
        }
    }

    fn knows(&self, name: &str) -> bool {
        name == self.about.name() || TYPES.contains(&name) || self.locals.iter().any(|local| local == name)
    }

    fn error(&mut self, id: u64, what: &str) {
        self.errors.push(located(self.source, id, what));
    }
}

/// An error as Kubernetes shows it: where it is, the line, and a mark under it.
fn located(source: &SourceInfo, id: u64, what: &str) -> String {
    let start = source.offset_for(id).map_or(0, |(start, _)| start as usize);
    let before: String = source.source.chars().take(start).collect();
    let (line, column) = (before.matches('\n').count(), before.rsplit('\n').next().unwrap_or_default().chars().count());
    let text = source.source.lines().nth(line).unwrap_or_default();
    let mark = ".".repeat(column);
    format!("ERROR: <input>:{}:{}: {what}\n | {text}\n | {mark}^", line + 1, column + 1)
}

impl Cost {
    fn add(&mut self, tree: &IdedExpr, loops: u32) {
        self.nodes += 1;
        self.loops = self.loops.max(loops);
        if let Expr::Call(call) = &tree.expr {
            match call.func_name.as_str() {
                operators::ADD | "split" => self.additions += 1,
                "replace" | "join" => match call.args.get(usize::from(call.func_name == "replace")).map(|a| &a.expr) {
                    Some(Expr::Literal(LiteralValue::String(text))) => {
                        self.growth = self.growth.saturating_mul(1 + text.inner().len() as u64);
                    }
                    None => {}
                    Some(_) => self.replacements += 1,
                },
                _ => {}
            }
        }
        if let Expr::Comprehension(each) = &tree.expr {
            self.add(&each.iter_range, loops);
            self.add(&each.accu_init, loops);
            for part in [&each.loop_cond, &each.loop_step, &each.result] {
                self.add(part, loops + 1);
            }
            return;
        }
        parts(tree).into_iter().for_each(|part| self.add(part, loops));
    }

    /// Each node in each turn of the loops it may be in, with all of the text that there can be.
    fn steps(&self, size: Size) -> u64 {
        let longest = size.values.saturating_mul(1 + self.additions).saturating_add(self.nodes);
        let text = size.bytes.saturating_mul(self.growth).saturating_mul(size.bytes.saturating_pow(self.replacements));
        self.nodes.saturating_mul(longest.saturating_pow(self.loops)).saturating_mul(1 + text / STEP_BYTES)
    }
}

impl Size {
    fn of(value: &Value) -> Size {
        let mut size = Size { values: 1, bytes: 0 };
        let mut add = |other: Size| {
            size.values += other.values;
            size.bytes += other.bytes;
        };
        match value {
            Value::String(text) => add(Size { values: 0, bytes: text.len() as u64 }),
            Value::Array(items) => items.iter().for_each(|item| add(Size::of(item))),
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                add(Size { values: 0, bytes: key.len() as u64 });
                add(Size::of(value));
            }),
            _ => {}
        }
        size
    }
}

/// Numbers of JSON are doubles, as Go reads them where it knows no better.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(is) => Cel::Bool(*is),
        Value::Number(number) => Cel::Float(number.as_f64().unwrap_or_default()),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (Key::String(Arc::new(key.clone())), to_cel(value));
            Cel::Map(Map { map: Arc::new(map.iter().map(entry).collect::<HashMap<_, _>>()) })
        }
    }
}

/// A name whose characters are written out, as CEL wants them in names of fields; nothing where none is.
fn unescaped(name: &str) -> Option<String> {
    const ESCAPES: [(&str, &str); 5] =
        [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscore__", "_")];
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        let (plain, escaped) = rest.split_at(at);
        let (escape, meant) = ESCAPES.iter().find(|(escape, _)| escaped.starts_with(escape))?;
        out.push_str(plain);
        out.push_str(meant);
        rest = &escaped[escape.len()..];
    }
    out.push_str(rest);
    (out != name).then_some(out)
}

fn is_name(tree: &IdedExpr, wanted: &str) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if name == wanted)
}

fn is_text(tree: &IdedExpr, wanted: &str) -> bool {
    matches!(&tree.expr, Expr::Literal(LiteralValue::String(text)) if text.inner() == wanted)
}

fn walk(tree: &IdedExpr, see: &mut impl FnMut(&Expr)) {
    see(&tree.expr);
    parts(tree).into_iter().for_each(|part| walk(part, see));
}

/// What an expression is made of.
fn parts(tree: &IdedExpr) -> Vec<&IdedExpr> {
    match &tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(object) => object.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Comprehension(each) => {
            vec![&each.iter_range, &each.accu_init, &each.loop_cond, &each.loop_step, &each.result]
        }
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Value {
        json!({
            "sub": "ann", "email": "ann@example.com", "email_verified": true, "exp": 1_800_003_600, "nbf": 1_800_000_000,
            "groups": ["dev", "", "ops"], "roles": "admin,user", "acme.com/id": "7", "nested": {"a.b": [1, 2]}, "none": null,
        })
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        let made = Expression::compile(text, About::Claims).and_then(|e| e.evaluate(&Subject::claims(&claims())));
        let got = match made {
            Ok(Cel::Bool(is)) => is.to_string(),
            Ok(Cel::Float(number)) => number.to_string(),
            Ok(value) => texts(&value).map_or_else(|why| why, |texts| texts.join("|")),
            Err(why) => why,
        };
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn what_expressions_make_of_claims() {
        check("claims.sub", "ann");
        check("claims.sub + ':x'", "ann:x");
        check("'prefix:' + claims['sub']", "prefix:ann");
        check("claims.groups", "dev|ops");
        check("claims.groups.map(g, 'oidc:' + g)", "oidc:dev|oidc:|oidc:ops");
        check("claims.groups.filter(g, g.startsWith('d'))", "dev");
        check("claims.roles.split(',')", "admin|user");
        check("claims.none", "");
        check("claims.?nick.orValue('nobody')", "nobody");
        check("claims.?email_verified.orValue(true) == true", "true");
        check("has(claims.nick) ? claims.nick : claims.sub.upperAscii()", "ANN");
        check("claims.exp - claims.nbf <= 86400", "true");
        check("claims.exp - claims.nbf <= 3599.0", "false");
        check("claims.sub.matches('^a.*n$') && 'dev' in claims.groups", "true");
        check("claims.groups.exists(g, g == 'ops')", "true");
        check("claims.groups.all(g, g != '')", "false");
        check("claims.acme__dot__com__slash__id", "7");
        check("claims.nested.a__dot__b[1] == 2.0", "true");
        check("claims['nested']['a.b'].size() == 2", "true");
        check("claims.nested.a__dot__b[1] == 2 && 1 in claims.nested.a__dot__b", "true");
        check("claims.exp > 5 && claims.exp < 2e10 && claims.exp in [1800003600]", "true");
        check("claims.nested.a__dot__b.exists_one(n, n >= 2)", "true");
        check("claims.nested.a__dot__b.all(n, n > 0 || claims.nick == '')", "true");
        check("claims.sub.contains('nn') ? claims.email.split('@')[1] : 'x'", "example.com");
        check("type(claims.sub) == string && claims.nested != null", "true");
        check("claims.exp", "1800003600");
        check("claims.nested", "expression must return a string or a list of strings");
        check("claims.nick", "expression 'claims.nick' resulted in error: no such key: nick");
        check("claims.sub + 1", "expression 'claims.sub + 1' resulted in error: no such overload");
    }

    #[track_caller]
    fn check_refused(text: &str, about: About, want: &str) {
        let got = Expression::compile_condition(text, about).err().unwrap_or("taken".into());
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn what_does_not_compile() {
        check_refused("claims.hd == 'example.com'", About::Claims, "taken");
        check_refused("claims.groups.all(g, g != '' && (has(claims.x) || true))", About::Claims, "taken");
        check_refused("true ? claims.a == 1 : !has(claims.b)", About::Claims, "taken");
        check_refused("!user.username.startsWith('system:')", About::User, "taken");
        check_refused("user.groups.all(group, !group.startsWith('system:'))", About::User, "taken");
        check_refused("claims.hd", About::Claims, "must evaluate to bool");
        check_refused("claims.groups.map(g, g)", About::Claims, "must evaluate to bool");
        check_refused("true ? claims.a : false", About::Claims, "must evaluate to bool");
        check_refused(
            "user.username == ''",
            About::Claims,
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'user' (in container '')\n | user.username == ''\n | ^",
        );
        check_refused(
            "claims.a == nosuch(1)",
            About::Claims,
            "compilation failed: ERROR: <input>:1:19: undeclared reference to 'nosuch' (in container '')\n | claims.a == nosuch(1)\n | ..................^",
        );
        check_refused(
            "user.name == ''",
            About::User,
            "compilation failed: ERROR: <input>:1:5: undefined field 'name'\n | user.name == ''\n | ....^",
        );
        let broken = Expression::compile("claims.", About::Claims).err().unwrap();
        assert!(broken.starts_with("compilation failed: ERROR: <input>:1:8: Syntax error"), "{broken}");
    }

    #[test]
    fn what_an_expression_reads() {
        let reads = |text: &str, field: &str| Expression::compile(text, About::Claims).unwrap().reads(field);
        assert!(reads("claims.email", "email"));
        assert!(reads("claims.?email_verified.orValue(true) ? claims.email : ''", "email_verified"));
        assert!(!reads("claims.email_verified == true", "email"));
        assert!(!reads("claims.nested.email", "email"));
    }

    #[test]
    fn what_is_nested_too_deeply_is_not_read() {
        let deep = [
            |n: usize| format!("1{}", "+1".repeat(n)),
            |n| format!("{}1{}", "(".repeat(n), ")".repeat(n)),
            |n| format!("{}1{}", "[".repeat(n), "]".repeat(n)),
            |n| format!("claims{}", ".a".repeat(n)),
            |n| format!("{}true", "!".repeat(n)),
            |n| format!("{}1", "-".repeat(n)),
            |n| format!("'a'{}", ".trim()".repeat(n / 2)),
            |n| format!("{}1", "true?1:".repeat(n)),
            |n| format!("true{}", "&&true".repeat(n / 2)),
            |n| format!("{}1{}", "{1:".repeat(n), "}".repeat(n)),
            |n| format!("claims{}", "[1]".repeat(n)),
        ];
        let subject = Subject::claims(&claims());
        for make in deep {
            let most = make(NESTING_MAX);
            if let Ok(expression) = Expression::compile(&most, About::Claims) {
                let _ = expression.evaluate(&subject);
            }
            let more = Expression::compile(&make(2 * NESTING_MAX + 2), About::Claims).err().unwrap();
            assert!(more.starts_with("compilation failed: the expression has more than"), "{more}");
        }
    }

    #[test]
    fn what_would_take_too_long_is_not_begun() {
        let many = json!({"list": (0..2000).map(|n| n.to_string()).collect::<Vec<_>>(), "text": "x".repeat(10_000)});
        let subject = Subject::claims(&many);
        let run = |text: &str| Expression::compile(text, About::Claims).unwrap().evaluate(&subject).err();
        assert_eq!(run("claims.list.exists(a, a == '1999')"), None);
        assert_eq!(run("claims.text.replace('x', 'y').replace('y', '') == ''"), None);
        for text in [
            "claims.list.all(a, claims.list.all(b, claims.list.all(c, a + b + c != '')))",
            "claims.text.replace('x', claims.text).replace('x', claims.text).replace('x', claims.text) == ''",
        ] {
            let why = run(text).unwrap_or_default();
            assert!(why.ends_with("operation cancelled: actual cost limit exceeded"), "{why}");
        }
    }
}
