"""Functions as data to text: each once, under a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mdlc.codegen.code import (
    Body,
    Call,
    Function,
    Loop,
    Microkernel,
    ParallelLoop,
    Parameter,
    Pointer,
    Scope,
    Statement,
    Value,
    Variable,
    walk,
)
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Step


def layer_function(step: Step, isa: Isa) -> Function:
    """The function of a step."""
    found = step.kernel.emit(step, step.seen(isa))
    assert isinstance(found, Function), step.kernel.name
    return found


class Functions:
    """The functions of a file, in the order in which they must stand.

    Attributes:
        texts: their definitions; declarations: of the same; members: definitions of member
            functions, which stand behind.
    """

    def __init__(
        self,
        taken: Iterable[str] = (),
        opening: Iterable[str] = (),
        renamed: Mapping[tuple[str, str, str], str] | None = None,
        others: Sequence[tuple[str, Functions]] = (),
    ) -> None:
        """No functions yet.

        Args:
            taken: names that none may get.
            opening: statements in front of the body of every member function.
            renamed: members of layers that are called otherwise than the packed array, by type of
                the layer, type of the array, and array.
            others: namespaces, and the functions defined there that need not be defined again.
        """
        self.texts: list[str] = []
        self.declarations: list[str] = []
        self.members: list[str] = []
        self._taken = set(taken)
        self._opening = tuple(opening)
        self._renamed = dict(renamed or {})
        self._others = tuple(others)
        self._names: dict[tuple[Function, bool], str] = {}
        self._defined: dict[tuple[Function, bool], None] = {}

    @property
    def defined(self) -> list[Function]:
        """What `texts` define."""
        return list(dict.fromkeys(each for each, _ in self._defined if not each.owner))

    def add(self, function: Function, *, shared: bool = False) -> str:
        """The name under which a function is defined, behind those that it calls.

        Args:
            shared: whether threads share its ParallelLoops; it then takes the pool last.
        """
        key = function, shared and function.parallel
        if key not in self._names and not function.owner:
            for space, other in self._others:
                if key in other._defined:
                    self._names[key] = f"{space}::{other._names[key]}"
                    return self._names[key]
        if key not in self._names:
            self._defined[key] = None
            run = ("workers_->" if function.owner else "pool.") if key[1] else ""
            body = self._body(function.body, run)
            self._names[key] = name = self._unique(function.name)
            fields, layer = list(map(str, function.fields)), []
            if function.struct:
                layer = [f"{f} = layer.{self._member(function, f)};" for f in function.fields]
                fields = [f"const {function.struct}&{' layer' if layer else ''}"]
            pool = ["ThreadPool& pool"] if key[1] else []
            if function.owner:
                layer = list(self._opening)
                pool = []
            parameters = ", ".join([*fields, *map(str, function.parameters), *pool])
            comment = "".join(f"// {line}\n" for line in function.comment)
            owner = f"{function.owner}::" if function.owner else ""
            inside = "\n".join([*layer, body])
            head = f"void {owner}{name}({parameters})"
            text = f"{comment}{head} {{\n{inside}\n}}\n"
            if owner:
                self.members.append(text)
            else:
                self.texts.append(text)
                self.declarations.append(f"{head};")
        return self._names[key]

    def _member(self, function: Function, field: Parameter) -> str:
        """The member of its layers that holds a packed array."""
        return self._renamed.get((function.struct, field.type, field.name), field.name)

    def _name_of(self, function: Function | Microkernel | str) -> str:
        if isinstance(function, Function):
            return self.add(function)
        return function if isinstance(function, str) else function.name

    def _unique(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_v{number}"
        self._taken.add(name)
        return name

    def _body(self, body: Body, pool: str, thread: bool = False) -> str:
        return "\n".join(self._statement(each, pool, thread) for each in body)

    def _statement(self, statement: Statement, pool: str, thread: bool) -> str:
        match statement:
            case str():
                return statement
            case Call(function, arguments, template_arguments, layer):
                name = self._name_of(function)
                listed = [
                    each.name if isinstance(each, Microkernel) else str(each)
                    for each in template_arguments
                ]
                name += f"<{', '.join(listed)}>" if listed else ""
                words = [*([layer] if layer else []), *(_value(v, thread) for v in arguments)]
                return f"{name}({', '.join(words)});"
            case Variable(kind, name, value):
                return f"{kind} {name} = {value.spelled(thread=thread)};"
            case Scope(body):
                return f"{{\n{self._body(body, pool, thread)}\n}}"
            case Loop(variable, count, body):
                inside = self._body(body, pool, thread)
                return _loop(variable, count, inside)
            case ParallelLoop():
                if pool and statement.count > 1:
                    return self._shared(statement, pool)
                return "\n".join(
                    _loop(statement.variable, count, self._body(body, pool, thread))
                    for count, body in statement.cases
                )

    def _shared(self, loop: ParallelLoop, pool: str) -> str:
        """A loop as a run of the pool, iterations of all kinds counted through."""
        inner = [each for _, body in loop.cases for each in walk(body)]
        thread = any(_owns(each) for each in inner)
        bodies = [(count, self._body(body, "", thread)) for count, body in loop.cases]
        if len(bodies) == 1:
            variable, text = loop.variable, bodies[0][1]
        else:
            variable, text, start = "item", "", 0
            for count, body in bodies:
                first = f" - {start}" if start else ""
                number = f"const int {loop.variable} = item{first};\n" if count > 1 else ""
                start += count
                test = f"if (item < {start}) " if start < loop.count else ""
                text += f"{test}{{\n{number}{body}\n}}{' else ' if start < loop.count else ''}"
        head = f"{pool}Run({loop.count}, [&](int {variable}, int{' thread' if thread else ''})"
        return f"{head} {{\n{text}\n}});"


def _loop(variable: str, count: int, body: str) -> str:
    if count == 1:
        return body
    return f"for (int {variable} = 0; {variable} < {count}; ++{variable}) {{\n{body}\n}}"


def _value(value: Value, thread: bool) -> str:
    return value.spelled(thread=thread) if isinstance(value, Pointer) else str(value)


def _owns(statement: Statement) -> bool:
    """Whether a statement reaches memory of which every thread has a part."""
    values: tuple[Value, ...] = ()
    if isinstance(statement, Call):
        values = statement.arguments
    elif isinstance(statement, Variable):
        values = (statement.value,)
    return any(isinstance(value, Pointer) and value.own for value in values)
