"""A Griffe extension that shows the signatures and docstrings of async methods for blocking methods."""

import griffe


class BlockingMethods(griffe.Extension):
    """Replaces `name = blocking(AsyncClass.name)` in a class with the function that a caller sees."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Process the classes of all modules."""
        for module in pkg.modules.values():
            if module.is_alias:
                continue
            for cls in module.classes.values():
                if not cls.is_alias:
                    _replace(cls, pkg)


def _replace(cls: griffe.Class, pkg: griffe.Module) -> None:
    for name, member in list(cls.members.items()):
        call = member.value if isinstance(member, griffe.Attribute) else None
        if not isinstance(call, griffe.ExprCall) or str(call.function) not in {"blocking", "blocking_as"}:
            continue
        source = pkg[call.arguments[0].canonical_path.removeprefix(f"{pkg.path}.")]
        returns = source.returns
        if len(call.arguments) > 1:
            wrap = call.arguments[1]
            target = pkg[wrap.canonical_path.removeprefix(f"{pkg.path}.")]
            returns = target.returns if isinstance(target, griffe.Function) else wrap
        method = griffe.Function(
            name,
            lineno=source.lineno,
            endlineno=source.endlineno,
            parameters=source.parameters,
            returns=returns,
            docstring=source.docstring,
            parent=cls,
        )
        cls.set_member(name, method)
