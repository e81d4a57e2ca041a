"""Go sources as far as the catalog needs them: declarations, types of expressions, constants.

tree-sitter parses. Types are followed through fields, results and embedded structs; what needs
more than that (interfaces, generics) has no type here, and the caller reports it.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import tree_sitter_go
from tree_sitter import Language, Node, Parser

from scripts.catalogue.source import Source

_PARSER = Parser(Language(tree_sitter_go.language()))
BUILT_FOR = frozenset({"linux", "amd64", "unix", "gc", "cgo"})
"""Build tags that hold for the programs of bundles."""
OTHER_SYSTEMS = re.compile(
    r"_(windows|darwin|freebsd|netbsd|openbsd|solaris|aix|plan9|js|wasm|arm|arm64|386|ppc64le|s390x)\.go"
)

TYPE_SPECS = frozenset({"type_spec", "type_alias"})
VALUE_SPECS = frozenset({"const_spec", "var_spec"})
Type = tuple[str, str]
"""The import path of a type's package, and its name there."""


@dataclass(slots=True, kw_only=True)
class File:
    """One parsed file: what its import names stand for."""

    path: str
    root: Node
    imports: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A function, type, constant or variable, and the file that it is in."""

    package: "Package"
    file: File
    node: Node


@dataclass(slots=True)
class Package:
    """The declarations of a folder, as Linux on amd64 compiles them."""

    path: str
    name: str = ""
    functions: dict[str, Declaration] = field(default_factory=dict)
    """`Function` or `Type.Method`."""
    inits: list[Declaration] = field(default_factory=list)
    types: dict[str, Declaration] = field(default_factory=dict)
    values: dict[str, Declaration] = field(default_factory=dict)
    """Constants and variables: the node is the specification."""
    files: list[File] = field(default_factory=list)


def text_of(node: Node | None) -> str:
    """Return the source text of a node; empty without one."""
    return node.text.decode() if node is not None and node.text else ""


def walk(node: Node) -> Iterator[Node]:
    """Every node below a node, in the order of the source, itself first."""
    yield node
    for child in node.named_children:
        yield from walk(child)


class Go:
    """Every package of a source tree, parsed when it is first needed."""

    def __init__(self, source: Source) -> None:
        """Take the tree to read from."""
        self.source = source
        self._packages: dict[str, Package | None] = {}
        self.unread: set[str] = set()
        """Places of the source that could not be read, each with what it is."""
        self.without: set[str] = set()
        """Programs that the source does not have."""
        self._constants = {
            "interpreted_string_literal": lambda _place, node, _known: _unquote(text_of(node)),
            "raw_string_literal": lambda _place, node, _known: _unquote(text_of(node)),
            "parenthesized_expression": self._inner,
            "binary_expression": self._sum,
            "identifier": self._named,
            "selector_expression": self._imported_value,
            "call_expression": self._call,
        }
        self._types = {
            "unary_expression": self._inner_type,
            "parenthesized_expression": self._inner_type,
            "composite_literal": self._literal_type,
            "identifier": self._name_type,
            "selector_expression": self._selector_type,
            "call_expression": self._call_type,
        }

    def package(self, path: str) -> Package | None:
        """Return the package of an import path; None if the tree does not have it."""
        if path not in self._packages:
            folder = self.source.folder_of(path)
            self._packages[path] = None if not folder else self._read(path, folder)
        return self._packages[path]

    def _read(self, path: str, folder: str) -> Package:
        package = Package(path)
        for name in self.source.list_files(folder):
            content = self.source.read(name)
            if OTHER_SYSTEMS.search(name) or not is_built(content):
                continue
            root = _PARSER.parse(content).root_node
            file = File(path=name, root=root, imports={})
            package.files.append(file)
            for node in root.named_children:
                _add(package, file, node)
        return package

    def imported(self, file: File, name: str) -> str | None:
        """Return the import path that a name stands for in a file."""
        if name in file.imports:
            return file.imports[name]
        for key, path in file.imports.items():
            found = self.package(path) if key.startswith("/") else None
            own = found.name if found else re.sub(r"/v\d+$", "", path).rpartition("/")[2]
            if key.startswith("/") and own == name:
                file.imports[name] = path
                return path
        return None

    def find_type(self, file: File, package: str, node: Node | None) -> Type | None:
        """Return the named type of a type expression, without its pointers."""
        while node is not None and node.type in {"pointer_type", "parenthesized_type"}:
            node = node.named_children[0]
        if not node:
            return None
        if node.type == "type_identifier":
            return package, text_of(node)
        if node.type == "qualified_type":
            path = self.imported(file, text_of(node.child_by_field_name("package")))
            return (path, text_of(node.child_by_field_name("name"))) if path else None
        return None

    def declaration_of(self, kind: Type) -> Declaration | None:
        """Return a type's declaration: an alias's target, if it is one."""
        for _ in range(5):
            package = self.package(kind[0])
            found = package.types.get(kind[1]) if package else None
            if not found:
                return None
            inner = found.node.child_by_field_name("type")
            if not inner or inner.type not in {"type_identifier", "qualified_type"}:
                return found
            target = self.find_type(found.file, found.package.path, inner)
            if not target or not self.declaration_of(target):
                return found
            kind = target
        return None

    def fields_of(self, kind: Type) -> Iterator[tuple[str, Node, Declaration]]:
        """Every field of a struct: name (empty: embedded), declaration, the struct."""
        found = self.declaration_of(kind)
        body = found.node.child_by_field_name("type") if found else None
        if not found or not body or body.type != "struct_type":
            return
        for item in body.named_children[0].named_children:
            if item.type != "field_declaration":
                continue
            names = item.children_by_field_name("name")
            for name in names or [None]:
                yield text_of(name), item, found

    def field_type(self, kind: Type, name: str) -> Type | None:
        """Return the type of a struct's field, promoted ones included."""
        embedded = []
        for key, item, owner in self.fields_of(kind):
            own = self.find_type(owner.file, owner.package.path, item.child_by_field_name("type"))
            if key == name or (not key and own and own[1] == name):
                return own
            if not key and own:
                embedded.append(own)
        return next((found for one in embedded if (found := self.field_type(one, name))), None)

    def method(self, kind: Type, name: str) -> Declaration | None:
        """Return a type's method, promoted ones included."""
        package = self.package(kind[0])
        if package and (found := package.functions.get(f"{kind[1]}.{name}")):
            return found
        declared = self.declaration_of(kind)
        if declared is not None and (declared.package.path, "") != (kind[0], ""):
            own = text_of(declared.node.child_by_field_name("name"))
            if found := declared.package.functions.get(f"{own}.{name}"):
                return found
        body = declared.node.child_by_field_name("type") if declared else None
        if declared is not None and body is not None and body.type == "interface_type":
            return _implementation(declared.package, body, name)
        for key, item, owner in self.fields_of(kind):
            if not key:
                inner = self.find_type(
                    owner.file, owner.package.path, item.child_by_field_name("type")
                )
                if inner and (found := self.method(inner, name)):
                    return found
        return None

    def result_type(self, function: Declaration) -> Type | None:
        """Return the type of a function's first result."""
        result = function.node.child_by_field_name("result")
        if result is not None and result.type == "parameter_list":
            first = next(iter(result.named_children), None)
            result = first.child_by_field_name("type") if first is not None else None
        return self.find_type(function.file, function.package.path, result)

    def constant(self, place: Declaration, node: Node, known: dict[str, str]) -> str | None:
        """Return the text that an expression has; None if that is not known."""
        read = self._constants.get(node.type)
        return read(place, node, known) if read else None

    def _inner(self, place: Declaration, node: Node, known: dict[str, str]) -> str | None:
        return self.constant(place, node.named_children[0], known)

    def _sum(self, place: Declaration, node: Node, known: dict[str, str]) -> str | None:
        parts = [self.constant(place, part, known) for part in node.named_children]
        is_sum = text_of(node.child_by_field_name("operator")) == "+" and None not in parts
        return "".join(part or "" for part in parts) if is_sum else None

    def _named(self, place: Declaration, node: Node, known: dict[str, str]) -> str | None:
        name = text_of(node)
        return known[name] if name in known else self._value(place.package, name)

    def _imported_value(self, place: Declaration, node: Node, _known: dict[str, str]) -> str | None:
        owner, name = _split_selector(node)
        path = self.imported(place.file, text_of(owner))
        package = self.package(path) if path else None
        return self._value(package, name) if package else None

    def _call(self, place: Declaration, node: Node, known: dict[str, str]) -> str | None:
        """Return the text of fmt.Sprintf, or of a conversion such as `string(x)`."""
        name = text_of(node.child_by_field_name("function"))
        arguments = node.child_by_field_name("arguments")
        given = [self.constant(place, one, known) for one in arguments.named_children]
        if not given or None in given:
            return None
        if name == "fmt.Sprintf":
            parts = re.split(r"%[svq]", given[0] or "")
            if len(parts) != len(given):
                return None
            ends = [*given[1:], ""]
            return "".join(part + (end or "") for part, end in zip(parts, ends, strict=True))
        is_conversion = name in {"string", "normalize"} or name.endswith(".Feature")
        return given[0] if len(given) == 1 and is_conversion else None

    def value_of(self, package: Package, name: str) -> Node | None:
        """Return the expression of a package's constant or variable; None without one."""
        found = package.values.get(name)
        return _value_of(found.node, name) if found else None

    def _value(self, package: Package, name: str) -> str | None:
        found, value = package.values.get(name), self.value_of(package, name)
        return self.constant(found, value, {}) if found and value is not None else None

    def literal(self, place: Declaration, node: Node | None) -> tuple[Declaration, Node] | None:
        """Return a composite literal and where it is: also that of a package's variable."""
        if node is not None and node.type == "identifier":
            found = place.package.values.get(text_of(node))
            value = _value_of(found.node, text_of(node)) if found else None
            return self.literal(found, value) if found else None
        return (place, node) if node is not None and node.type == "composite_literal" else None

    def infer(self, place: Declaration, node: Node | None, local: dict[str, Type]) -> Type | None:
        """Return the type of an expression; None if that is not known."""
        read = self._types.get(node.type) if node is not None else None
        return read(place, node, local) if read else None

    def _inner_type(self, place: Declaration, node: Node, local: dict[str, Type]) -> Type | None:
        return self.infer(place, node.named_children[0], local)

    def _literal_type(self, place: Declaration, node: Node, _: dict[str, Type]) -> Type | None:
        return self.find_type(place.file, place.package.path, node.child_by_field_name("type"))

    def _name_type(self, place: Declaration, node: Node, local: dict[str, Type]) -> Type | None:
        return local.get(text_of(node)) or self._variable(place.package, text_of(node))

    def _selector_type(self, place: Declaration, node: Node, local: dict[str, Type]) -> Type | None:
        owner, name = _split_selector(node)
        path = self._package_of(place, owner, local)
        if path:
            package = self.package(path)
            return self._variable(package, name) if package else None
        kind = self.infer(place, owner, local)
        return self.field_type(kind, name) if kind else None

    def _call_type(self, place: Declaration, node: Node, local: dict[str, Type]) -> Type | None:
        if text_of(node.child_by_field_name("function")) == "new":
            first = node.child_by_field_name("arguments").named_children[0]
            return self.find_type(place.file, place.package.path, first)
        function = self.callee(place, node, local)
        return self.result_type(function) if function else None

    def _package_of(self, place: Declaration, node: Node, local: dict[str, Type]) -> str | None:
        """Return the import path that an expression is the name of; None if it is no package."""
        if node.type != "identifier" or text_of(node) in local:
            return None
        return self.imported(place.file, text_of(node))

    def _variable(self, package: Package, name: str) -> Type | None:
        """Return the type of a package's variable: of its value, else the declared one."""
        found = package.values.get(name)
        if not found:
            return None
        value = _value_of(found.node, name)
        kind = self.infer(found, value, {}) if value is not None else None
        declared = found.node.child_by_field_name("type")
        return kind or self.find_type(found.file, package.path, declared)

    def callee(self, place: Declaration, call: Node, local: dict[str, Type]) -> Declaration | None:
        """Return the function that a call is of; None if that is not known."""
        function = call.child_by_field_name("function")
        if not function:
            return None
        if function.type == "identifier":
            return place.package.functions.get(text_of(function))
        if function.type != "selector_expression":
            return None
        owner, name = _split_selector(function)
        path = self._package_of(place, owner, local)
        if path:
            package = self.package(path)
            return package.functions.get(name) if package else None
        kind = self.infer(place, owner, local)
        return self.method(kind, name) if kind else None


def _implementation(package: Package, interface: Node, name: str) -> Declaration | None:
    """Return the method of the only type in an interface's package that has all its methods."""
    methods = {
        text_of(one.child_by_field_name("name"))
        for one in interface.named_children
        if one.type == "method_elem"
    }
    owned: dict[str, set[str]] = {}
    for key in package.functions:
        owner, _, method = key.rpartition(".")
        owned.setdefault(owner, set()).add(method)
    owners = [owner for owner, found in owned.items() if owner and methods <= found]
    return package.functions.get(f"{owners[0]}.{name}") if len(owners) == 1 else None


def is_built(content: bytes) -> bool:
    """Whether the file's build tags hold on Linux, for programs as upstream publishes them."""
    head = content.split(b"\npackage ")[0].decode(errors="replace")
    if match := re.search(r"^//go:build (.*)$", head, re.MULTILINE):
        return _holds(match[1])
    lines = re.findall(r"^// \+build (.*)$", head, re.MULTILINE)
    return all(
        any(all(_holds(tag) for tag in group.split(",")) for group in line.split())
        for line in lines
    )


def _holds(expression: str) -> bool:
    """Evaluate `a && (b || !c)`, whose operators are written as Python has them."""
    words = {"&&": " and ", "||": " or ", "!": " not "}
    text = re.sub(r"&&|\|\||!|[\w.]+", lambda m: words.get(m[0]) or str(_is_set(m[0])), expression)
    try:
        return _evaluate(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        return True  # rather one file too many than one too few


def _evaluate(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(_evaluate(value) for value in node.values)
        case ast.BoolOp(op=ast.Or()):
            return any(_evaluate(value) for value in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _evaluate(node.operand)
    return isinstance(node, ast.Constant) and node.value is True


def _is_set(tag: str) -> bool:
    return tag in BUILT_FOR or bool(re.fullmatch(r"go1\.\d+", tag))


def _add(package: Package, file: File, node: Node) -> None:
    """Add what a top-level node declares."""
    here = Declaration(package=package, file=file, node=node)
    name = text_of(node.child_by_field_name("name"))
    match node.type:
        case "package_clause":
            package.name = text_of(node.named_children[0])
        case "import_declaration":
            file.imports |= _imports(node)
        case "function_declaration" if name == "init":
            package.inits.append(here)
        case "function_declaration":
            package.functions[name] = here
        case "method_declaration":
            receiver = node.child_by_field_name("receiver")
            kind = next((one for one in walk(receiver) if one.type == "type_identifier"), None)
            package.functions[f"{text_of(kind)}.{name}"] = here
        case "type_declaration":
            package.types |= _specifications(package, file, node, TYPE_SPECS)
        case "const_declaration" | "var_declaration":
            package.values |= _specifications(package, file, node, VALUE_SPECS)


def _imports(node: Node) -> dict[str, str]:
    """Return what names stand for: without an alias `/` marks a path until its name is needed."""
    found = {}
    for spec in (one for one in walk(node) if one.type == "import_spec"):
        path = _unquote(text_of(spec.child_by_field_name("path")))
        found[text_of(spec.child_by_field_name("name")) or f"/{path}"] = path
    return found


def _specifications(
    package: Package, file: File, node: Node, kinds: frozenset[str]
) -> dict[str, Declaration]:
    return {
        text_of(name): Declaration(package=package, file=file, node=spec)
        for spec in (one for one in walk(node) if one.type in kinds)
        for name in spec.children_by_field_name("name")
    }


def _value_of(spec: Node, name: str) -> Node | None:
    """Return the expression that a specification gives one of its names."""
    names = [text_of(one) for one in spec.children_by_field_name("name")]
    values = spec.child_by_field_name("value")
    given = values.named_children if values is not None else []
    if name not in names or not given:
        return None
    index = names.index(name)
    return given[index] if index < len(given) else given[0]


def _split_selector(node: Node) -> tuple[Node, str]:
    operand, name = node.child_by_field_name("operand"), node.child_by_field_name("field")
    assert operand is not None  # noqa: S101  the grammar has it
    return operand, text_of(name)


def _unquote(text: str) -> str:
    return text[1:-1]
