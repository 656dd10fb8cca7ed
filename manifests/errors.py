"""The one exception a person is meant to read: what is wrong, where, why, and what to do next."""

from __future__ import annotations


class InputError(Exception):
    """Bad input, or a state of the world that a person has to mend.

    The commands print it as one screen without a traceback. ``what`` is one sentence, ``where`` the file, folder,
    option or clip concerned, ``why`` the reason as far as it is known, ``fix`` the next step.
    """

    def __init__(self, *, what: str, where: str = "", why: str = "", fix: str = "") -> None:
        self.what, self.where, self.why, self.fix = what, where, why, fix
        super().__init__(self.screen())

    def screen(self) -> str:
        """The message as printed, one labelled line for each part that is known."""
        lines = [self.what]
        for label, text in (("where", self.where), ("why", self.why), ("do", self.fix)):
            if text:
                lines.append(f"  {label + ':':<7}{text}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default reduction, and errors cross process borders here.
        return (_rebuild, (type(self), self.what, self.where, self.why, self.fix))


def _rebuild(kind: type[InputError], what: str, where: str, why: str, fix: str) -> InputError:
    return kind(what=what, where=where, why=why, fix=fix)
