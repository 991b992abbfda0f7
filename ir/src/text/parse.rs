//! Reads modules. Bad text gives a [`Diagnostic`] with the lines around it, never a panic.
use crate::diag::Diagnostic;
use crate::graph::{Function, Module};
use crate::{DType, Op, Type, Value};

/// A module from its text.
pub fn parse(source: &str) -> Result<Module, Diagnostic> {
    let mut reader = Reader { module: Module::default(), function: None };
    let mut pending = String::new();
    let mut start = 1;
    for (i, raw) in source.lines().enumerate() {
        let line = strip_comment(raw).trim();
        if pending.is_empty() {
            start = i + 1;
        }
        pending.push_str(line);
        let unfinished = pending.starts_with("func ") && !pending.ends_with('{');
        if unfinished && !line.is_empty() {
            pending.push(' ');
            continue;
        }
        let statement = std::mem::take(&mut pending);
        reader.statement(statement.trim()).map_err(|message| Diagnostic::at(source, start, message))?;
    }
    if !pending.is_empty() || reader.function.is_some() {
        return Err(Diagnostic::at(source, source.lines().count().max(1), "the text ends inside a function"));
    }
    if reader.module.functions.is_empty() {
        return Err(Diagnostic::at(source, 1, "there is no function"));
    }
    Ok(reader.module)
}

/// Cuts a `//` comment, unless it stands in a quoted name.
fn strip_comment(line: &str) -> &str {
    let mut quoted = false;
    let bytes = line.as_bytes();
    for i in 0..bytes.len() {
        match bytes[i] {
            b'"' => quoted = !quoted,
            b'/' if !quoted && bytes.get(i + 1) == Some(&b'/') => return &line[..i],
            _ => {}
        }
    }
    line
}

struct Reader {
    module: Module,
    function: Option<Function>,
}

impl Reader {
    fn statement(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        match self.function.take() {
            None => {
                let rest = line.strip_prefix("func @").ok_or("expected `func @name(…) {`")?;
                self.function = Some(self.header(rest)?);
            }
            Some(mut function) if line == "}" => {
                if function.results.is_empty() {
                    return Err(format!("@{} has no `return`", std::mem::take(&mut function.name)));
                }
                self.module.add(function);
            }
            Some(function) if !function.results.is_empty() => return Err("expected `}` after `return`".into()),
            Some(mut function) => {
                self.body_line(&mut function, line)?;
                self.function = Some(function);
            }
        }
        Ok(())
    }

    fn header(&self, rest: &str) -> Result<Function, String> {
        let (name, rest) = rest.split_once('(').ok_or("expected `(` after the function's name")?;
        if self.module.find(name).is_some() {
            return Err(format!("there are two functions called @{name}"));
        }
        let mut rest =
            rest.strip_suffix('{').map(str::trim_end).and_then(|r| r.strip_suffix(')')).ok_or("expected `) {`")?.trim();
        let mut function = Function::new(name);
        while !rest.is_empty() {
            let (id, after) = rest.split_once(" \"").ok_or("expected `%0 \"name\": type`")?;
            let (param, after) = after.split_once('"').ok_or("expected the closing quote of the name")?;
            let after = after.strip_prefix(':').ok_or("expected `:` after the name")?;
            let close = after.find(']').ok_or("expected a type such as `f32[4,8]`")?;
            let value = function.param(param, ty(after[..=close].trim())?);
            if parse_value(id)? != value {
                return Err(format!("parameter `{param}` is called {id}, wanted %{}", value.0));
            }
            rest = after[close + 1..].trim().trim_start_matches(',').trim();
        }
        Ok(function)
    }

    fn body_line(&self, function: &mut Function, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("return ") {
            function.results = self.operands(function, rest)?;
            return Ok(());
        }
        let (names, rest) = line.split_once(" = ").ok_or("expected `%n = op …` or `return …`")?;
        let (body, types) = rest.rsplit_once(" : ").ok_or("expected ` : type` at the end")?;
        let results = match body.strip_prefix("call @") {
            Some(call) => self.call(function, call)?,
            None => self.op(function, body)?,
        };
        let written: Vec<Value> = names.split(',').map(parse_value).collect::<Result<_, _>>()?;
        if written != results {
            let wanted: Vec<String> = results.iter().map(|r| format!("%{}", r.0)).collect();
            return Err(format!("the results are called {names}, wanted {}", wanted.join(", ")));
        }
        let inferred: Vec<String> = results.iter().map(|r| function.ty(*r).to_string()).collect();
        let inferred = inferred.join(", ");
        if types.trim() != inferred {
            return Err(format!("the type is written {}, inferred {inferred}", types.trim()));
        }
        Ok(())
    }

    fn call(&self, function: &mut Function, call: &str) -> Result<Vec<Value>, String> {
        let (name, args) = call.split_once('(').ok_or("expected `(` after the callee")?;
        let args = self.operands(function, args.strip_suffix(')').ok_or("expected `)`")?)?;
        let callee = self.module.find(name).ok_or_else(|| format!("no earlier function is called @{name}"))?;
        function.try_call(&self.module, callee, &args)
    }

    fn op(&self, function: &mut Function, body: &str) -> Result<Vec<Value>, String> {
        let (head, attrs) = match body.split_once(" {").or_else(|| body.split_once('{')) {
            Some((head, attrs)) => (head, attrs.strip_suffix('}').ok_or("expected `}` after the attributes")?),
            None => (body, ""),
        };
        let (name, args) = head.trim().split_once(' ').unwrap_or((head.trim(), ""));
        let attrs = attributes(attrs)?;
        let get = |key: &str| {
            let found = attrs.iter().find(|(k, _)| *k == key);
            found.map(|(_, v)| v.to_string()).ok_or_else(|| format!("`{name}` needs the attribute `{key}`"))
        };
        let op = Op::parse(name, &get)?;
        let known = op.print_attrs();
        if let Some((key, _)) = attrs.iter().find(|(k, _)| !known.iter().any(|(known, _)| known == k)) {
            return Err(format!("`{name}` has no attribute `{key}`"));
        }
        let args = if args.trim().is_empty() { vec![] } else { self.operands(function, args)? };
        function.try_push(op, &args)
    }

    fn operands(&self, function: &Function, text: &str) -> Result<Vec<Value>, String> {
        if text.trim().is_empty() {
            return Ok(vec![]);
        }
        text.split(',')
            .map(|operand| {
                let value = parse_value(operand)?;
                let known = value.index() < function.value_count();
                known.then_some(value).ok_or_else(|| format!("{} is used before it is made", operand.trim()))
            })
            .collect()
    }
}

/// `a = 1, b = [2, 3]` as pairs.
fn attributes(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let (mut depth, mut start, mut parts) = (0i32, 0, vec![]);
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let split = |part: &'_ str| -> Result<(usize, usize), String> {
        part.find('=').map(|at| (at, at + 1)).ok_or_else(|| format!("expected `name = value`, found `{}`", part.trim()))
    };
    parts
        .into_iter()
        .filter(|part| !part.trim().is_empty())
        .map(|part| split(part).map(|(end, from)| (part[..end].trim(), part[from..].trim())))
        .collect()
}

fn parse_value(text: &str) -> Result<Value, String> {
    let number = text.trim().strip_prefix('%').and_then(|n| n.parse().ok());
    number.map(Value).ok_or_else(|| format!("`{}` is no value; values look like %3", text.trim()))
}

fn ty(text: &str) -> Result<Type, String> {
    let (dtype, sizes) =
        text.strip_suffix(']').and_then(|t| t.split_once('[')).ok_or_else(|| format!("`{text}` is no type"))?;
    let dtype = DType::from_name(dtype)
        .ok_or_else(|| crate::diag::unknown("element type", dtype, DType::ALL.iter().map(|d| d.name())))?;
    let size = |s: &str| s.trim().parse::<usize>().ok().filter(|n| (1..=1 << 40).contains(n));
    let shape = sizes.split(',').map(|s| size(s).ok_or_else(|| format!("`{}` is no size", s.trim())));
    Ok(Type::new(dtype, shape.collect::<Result<Vec<_>, _>>()?))
}
