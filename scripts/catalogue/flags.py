"""Command-line flags that a program registers: its functions are followed from its command on."""

import re
from collections.abc import Iterator

from tree_sitter import Node

from scripts.catalogue.golang import Declaration, Go, Package, Type, text_of, walk
from scripts.catalogue.source import KUBERNETES

COMMANDS = {
    "kube-apiserver": "NewAPIServerCommand",
    "kube-controller-manager": "NewControllerManagerCommand",
    "kube-proxy": "NewProxyCommand",
    "kube-scheduler": "NewSchedulerCommand",
    "kubelet": "NewKubeletCommand",
}
"""Program → the function of cmd/PROGRAM/app that makes its command."""
FLAG_SETS = frozenset({"FlagSet", "flagSet", "NamedFlagSets", "Command"})
REGISTERS = re.compile(
    r"((Bool|Count|Duration|Float(32|64)|Func|BoolFunc|IP|IPMask|IPNet|(Int|Uint)(8|16|32|64)?|String|Text"
    r"|StringTo(String|Int|Int64)|BytesHex|BytesBase64)(Slice|Array)?)?(Var)?(P|PF)?"
)
"""Names of methods of flag sets that register a flag."""
MAKES_SET = re.compile(
    r"(\.|\b)(FlagSet\([^()]*(\([^()]*\))?[^()]*\)|(Persistent)?Flags\(\)|NewFlagSet\(.*\)|CommandLine)$",
    re.DOTALL,
)
"""Expressions that are flag sets, although no type says so."""
RUNS = frozenset({"Run", "RunE", "PreRun", "PreRunE", "PersistentPreRun", "PersistentPreRunE"})
HELPS = re.compile("Print|Set")
"""Names of functions that get flag sets for help texts only."""
TAKES = re.compile("register", re.IGNORECASE)
"""Names of functions that take one flag of another set by its name."""
LIBRARIES = ("github.com/spf13/",)
"""Packages that are never followed: flag sets themselves."""


def read_flags(go: Go, program: str) -> set[str]:
    """Return every flag that the program registers; empty if the source does not have it.

    `go.unread` gets the calls that could not be followed.
    """
    app = go.package(f"{KUBERNETES}/cmd/{program}/app")
    command = app.functions.get(COMMANDS[program]) if app else None
    if not command:
        go.without.add(program)
        go.unread.add(
            f"cmd/{program}/app has no function {COMMANDS[program]}: its rows stay as they are"
        )
        return set()
    walker = _Walk(go)
    walker.follow(command, {}, {})
    walker.read_main(program)
    return set() if program in go.without else walker.names | {"help"}  # help: cobra's own


class _Walk:
    """Functions that were followed, with the text of their parameters."""

    def __init__(self, go: Go) -> None:
        self.go = go
        self.names: set[str] = set()
        self.left_out: set[tuple[str, str]] = set()
        """Files, and names there of sets of which only some flags are taken."""
        self.read_whole: Package | None = None
        """The package of which every function is followed."""
        self.takes_all = False
        """Whether the program adds the flags that every package registers."""
        self.seen: set[tuple[str, int, tuple[tuple[str, str], ...]]] = set()

    def read_main(self, program: str) -> None:
        """Read the flags that cmd/PROGRAM adds to those of the command.

        A main function that adds all flags of the process has those of the packages that it
        imports.
        """
        main = self.go.package(f"{KUBERNETES}/cmd/{program}")
        function = main.functions.get("main") if main else None
        if not main or not function:
            self.go.without.add(program)
            self.go.unread.add(f"cmd/{program} has no function main: its rows stay as they are")
            return
        self.follow(function, {}, {})
        if not self.takes_all:
            return
        for package in self._list_imported(main):
            self._read_globals(package)

    def _list_imported(self, main: Package) -> Iterator[Package]:
        """Every package that Kubernetes' own packages below `main` import, and these."""
        waiting, seen = [main.path], {main.path}
        while waiting:
            path = waiting.pop()
            package = self.go.package(path)
            if not package or path.startswith(LIBRARIES):
                continue
            yield package
            if path.startswith(f"{KUBERNETES}/"):
                found = {path for file in package.files for path in file.imports.values()}
                waiting += sorted(found - seen)
                seen |= found

    def _read_globals(self, package: Package) -> None:
        """Read what a package registers when it is loaded: in variables, and in init functions."""
        self.read_whole = package
        for declared in (*package.inits, *package.values.values()):
            if declared.node.type == "var_spec" or declared in package.inits:
                for call in (one for one in walk(declared.node) if one.type == "call_expression"):
                    owner = text_of(call.child_by_field_name("function")).rpartition(".")[0]
                    given = text_of(call.child_by_field_name("arguments"))
                    if owner in {"flag", "pflag", ""} or "CommandLine" in given:
                        self._call(declared, call, {}, {})
        self.read_whole = None

    def follow(self, function: Declaration, known: dict[str, str], types: dict[str, Type]) -> None:
        """Read the calls of a function; `known` and `types` are of its parameters."""
        key = (function.file.path, function.node.start_byte, tuple(sorted(known.items())))
        body = function.node.child_by_field_name("body")
        if key in self.seen or not body:
            return
        self.seen.add(key)
        local = {**self._parameters(function), **types}
        for call in (one for one in walk(body) if one.type == "call_expression"):
            if text_of(call.child_by_field_name("function")).endswith(".VisitAll"):
                self._add_chosen(function, call, known)
        self._read(function, body, dict(known), local)

    def _add_chosen(self, place: Declaration, call: Node, known: dict[str, str]) -> None:
        """Add the flags of another set that a function takes by name, in `case` clauses."""
        owner = text_of(call.child_by_field_name("function")).rpartition(".")[0]
        if any(one.type == "default_case" for one in walk(call)):
            return  # the function takes the others too
        chosen = [
            text
            for case in (one for one in walk(call) if one.type == "expression_case")
            if re.search(r"\.(Var|AddFlag)\(", text_of(case))
            for value in _items(case.child_by_field_name("value"))
            if (text := self.go.constant(place, value, known))
        ]
        if chosen:
            self.left_out.add((place.file.path, owner))
            for text in chosen:
                self._add(text)

    def _parameters(self, function: Declaration) -> dict[str, Type]:
        found: dict[str, Type] = {}
        for part in ("receiver", "parameters", "result"):
            for item in _items(function.node.child_by_field_name(part)):
                kind = self._type(function, item.child_by_field_name("type"))
                if kind:
                    found |= {text_of(one): kind for one in item.children_by_field_name("name")}
        return found

    def _type(self, place: Declaration, node: Node | None) -> Type | None:
        return self.go.find_type(place.file, place.package.path, node)

    def _read(
        self, place: Declaration, node: Node, known: dict[str, str], local: dict[str, Type]
    ) -> None:
        if node.type == "keyed_element" and text_of(node.named_children[0]) in RUNS:
            return
        if node.type == "for_statement" and (loop := self._texts_of_range(place, node)):
            name, texts = loop
            for text in texts:
                for child in node.child_by_field_name("body").named_children:
                    self._read(place, child, {**known, name: text}, local)
            return
        if node.type == "call_expression":
            self._call(place, node, known, local)
        for child in node.named_children:
            self._read(place, child, known, local)
        if node.type in {"short_var_declaration", "assignment_statement"}:
            self._bind(place, node, known, local)
        elif node.type == "var_spec" and (
            kind := self._type(place, node.child_by_field_name("type"))
        ):
            local |= {text_of(one): kind for one in node.children_by_field_name("name")}

    def _bind(
        self, place: Declaration, node: Node, known: dict[str, str], local: dict[str, Type]
    ) -> None:
        names = _items(node.child_by_field_name("left"))
        values = _items(node.child_by_field_name("right"))
        for name, value in zip(names, values, strict=False):
            if kind := self._infer(place, value, local):
                local[text_of(name)] = kind
            if (constant := self.go.constant(place, value, known)) is not None:
                known[text_of(name)] = constant

    def _texts_of_range(self, place: Declaration, node: Node) -> tuple[str, list[str]] | None:
        """Return the variable and the texts of `for _, name := range []string{…}`."""
        clause = next((one for one in node.named_children if one.type == "range_clause"), None)
        names = _items(clause.child_by_field_name("left")) if clause is not None else []
        if len(names) != 2:
            return None
        literal = self.go.literal(place, clause.child_by_field_name("right"))
        if not literal:
            return None
        items = _items(literal[1].child_by_field_name("body"))
        values = [one.named_children[0] for one in items if one.type == "literal_element"]
        texts = [self.go.constant(literal[0], value, {}) for value in values]
        known = [text for text in texts if text]
        return (text_of(names[1]), known) if known else None

    def _infer(self, place: Declaration, node: Node, local: dict[str, Type]) -> Type | None:
        value = node
        if node.type == "identifier" and text_of(node) not in local:
            value = self.go.value_of(place.package, text_of(node)) or node
        if MAKES_SET.search(text_of(value)):
            return "", "FlagSet"
        return self.go.infer(place, node, local)

    def _is_flag_set(self, place: Declaration, node: Node, local: dict[str, Type]) -> bool:
        kind = self._infer(place, node, local)
        return kind is not None and kind[1] in FLAG_SETS

    def _call(
        self, place: Declaration, call: Node, known: dict[str, str], local: dict[str, Type]
    ) -> None:
        function = call.child_by_field_name("function")
        arguments = _items(call.child_by_field_name("arguments"))
        name = text_of(function).rpartition(".")[2]
        if not function or HELPS.match(name):
            return
        if function.type == "selector_expression":
            owner = function.named_children[0]
            if self._is_flag_set(place, owner, local) or self._is_flag_package(place, owner, local):
                self._call_of_set(place, call, name, arguments, known)
                return
        if any((place.file.path, text_of(one).lstrip("&")) in self.left_out for one in arguments):
            return
        carries = any(self._is_flag_set(place, one, local) for one in arguments)
        target = self.go.callee(place, call, local)
        if target is not None:
            self._follow_call(place, target, name, arguments, known, carries=carries)
        elif carries and function.type != "identifier":
            self._report(place, call, text_of(function))

    def _follow_call(
        self,
        place: Declaration,
        target: Declaration,
        name: str,
        arguments: list[Node],
        known: dict[str, str],
        *,
        carries: bool,
    ) -> None:
        """Follow a call that may register flags; one that takes a flag by name registers it."""
        if target.package.path.startswith(LIBRARIES):
            return
        if carries and TAKES.search(name):
            texts = [self.go.constant(place, one, known) for one in arguments]
            if named := next((text for text in texts if text), None):
                self._add(named)
                return
        is_whole = target.package is self.read_whole
        if carries or is_whole or name.endswith("Flags") or self._gives_flags(target):
            self.follow(target, self._known(target, place, arguments, known), {})

    def _report(self, place: Declaration, node: Node, text: str) -> None:
        self.go.unread.add(f"{place.file.path}:{node.start_point[0] + 1}: {text}")

    def _gives_flags(self, function: Declaration) -> bool:
        """Whether a function returns a flag set, or options that have one."""
        result = self.go.result_type(function)
        if not result or not result[1].endswith(("FlagSet", "FlagSets", "Options")):
            return False
        kinds = [
            self._type(owner, item.child_by_field_name("type"))
            for _, item, owner in self.go.fields_of(result)
        ]
        return any(kind is not None and kind[1] in FLAG_SETS for kind in (result, *kinds))

    def _is_flag_package(self, place: Declaration, node: Node, local: dict[str, Type]) -> bool:
        name = text_of(node)
        path = None if name in local else self.go.imported(place.file, name)
        return path in {"flag", "github.com/spf13/pflag"} or name in {"flag", "pflag"}

    def _known(
        self, target: Declaration, place: Declaration, arguments: list[Node], known: dict[str, str]
    ) -> dict[str, str]:
        """Return the text of a function's parameters, where a call gives a constant."""
        names = [
            text_of(one)
            for item in _items(target.node.child_by_field_name("parameters"))
            for one in item.children_by_field_name("name")
        ]
        texts = [self.go.constant(place, one, known) for one in arguments]
        return {name: text for name, text in zip(names, texts, strict=False) if text is not None}

    def _call_of_set(
        self,
        place: Declaration,
        call: Node,
        name: str,
        arguments: list[Node],
        known: dict[str, str],
    ) -> None:
        """Read a call of a flag set's method."""
        if name in {"AddFlagSet", "AddGoFlagSet", "VisitAll"}:
            self._add_set(place, call, name, text_of(arguments[0]) if arguments else "")
        elif name in {"AddFlag", "AddGoFlag"}:
            for node in (one for argument in arguments for one in walk(argument)):
                inner = _items(node.child_by_field_name("arguments"))
                is_lookup = text_of(node.child_by_field_name("function")).endswith("Lookup")
                text = self.go.constant(place, inner[0], known) if inner and is_lookup else None
                if text:
                    self._add(text)
        elif REGISTERS.fullmatch(name):
            index = 1 if "Var" in name else 0
            node = arguments[index] if len(arguments) > index else call
            text = self.go.constant(place, node, known)
            if text is not None:
                self._add(text)
            elif not re.fullmatch(
                r"\w+\.Name", text_of(node)
            ):  # another set's, which is read there
                self._report(place, call, f"{name}({text_of(node)}")

    def _add_set(self, place: Declaration, call: Node, name: str, argument: str) -> None:
        """Read the flags that another flag set has: those of init functions, or of all packages."""
        self.takes_all |= name == "AddGoFlagSet" and argument.endswith("CommandLine")
        owner = text_of(call.child_by_field_name("function")).rpartition(".")[0]
        if (owner if name == "VisitAll" else argument) in place.package.values:
            for function in place.package.inits:
                self.follow(function, {}, {})

    def _add(self, name: str) -> None:
        self.names.add(name.replace("_", "-"))


def _items(node: Node | None) -> list[Node]:
    return list(node.named_children) if node is not None else []
