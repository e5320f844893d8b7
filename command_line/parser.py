"""The parser of the command line, with messages for users."""

import inspect
import re
import sys
from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from tailmatch.command_line.hints import class_names_for, options_named, similar
from tailmatch.command_line.mends import mend_jsonargparse
from tailmatch.lightning_modules.inference.class_paths import public_names
from tailmatch.lightning_modules.inference.trust import class_named
from tailmatch.lightning_modules.training.schedules import PLATEAU


class Parser(LightningArgumentParser):
    """A parser that prints errors as one message, without the list of all options.

    Attributes:
        examples: What the help shows after all options, as it is.
    """

    examples = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        mend_jsonargparse()
        super().__init__(*args, **kwargs)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Add the examples to the help."""
        return str(super().format_help(*args, **kwargs)) + self.examples

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and what would be right, and end the program with exit code 2."""
        if not self.exit_on_error:  # an inner parser: the outer one will say it
            super().error(message, ex)
        sys.stderr.write(f"tailmatch: error: {plain_message(message, self)}\n")
        sys.exit(2)


_OF_ANY_CALLBACK = re.compile(
    r"\n *- Problem with given class_path 'pytorch_lightning\.Callback':\n *Option '[\w.]+' is not accepted"
)


def plain_message(message: str, parser: LightningArgumentParser) -> str:
    """Shorten a parser's message by the parts about Python types, and suggest similar names."""
    noise = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "Expected a <class 'NoneType'>",
        "Expected a path",
        "Given value",
        "Subclass types expect one of",
        "a class path (str)",
        "a dict with",
    )
    if re.search(
        r"- Problem with given class_path '(?!pytorch_lightning\.Callback')", message
    ):  # one callback of a list is also tried as no list
        message = _OF_ANY_CALLBACK.sub("", message)
    lines = [line for line in message.splitlines() if not line.strip().removeprefix("- ").startswith(noise)]
    text = "\n".join(dict.fromkeys(line for line in lines if line.strip()))
    text = text.replace("Expected a dot import path string:", "There is no class")
    option = re.search(r"Option '([\w.]+)' is not accepted", text)
    path = re.search(r"(?s).*class_path[ =]'([\w.]+)'", text)
    member = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text)
    name = re.search(r"There is no class (\w+)", text)
    key = re.search(r"(?:accept option '|arguments: --|Key ')([\w.]+)", text)
    text = in_one_line(text, message)
    if name and name[1] in public_names():
        return text.replace(name[0], f"{name[1]} is a class of this package, and none for this option")
    asked, known = [], list[str]()
    if option and path:
        asked, known = [option[1]], argument_names(path[1])
        if option[1] in known:  # of a class that it stands on
            return f"{text}, which sets it itself: leave it out"
    elif member:
        asked, known = [member[2]], dir(sys.modules.get(member[1]))  # a text may only pretend that it is imported
    elif name:
        asked, known = [name[1]], class_names_for(re.split(r"[:\s]", text)[0])
    elif key:
        asked = [key[1], key[1].split(".")[0]]
        names = [action.dest for p in (parser, *parser_of_subcommands(parser)) for action in p._actions]
        known = names + [name.split(".")[0] for name in names]
    required = re.search(r"required: (fit|validate|test|predict)\.", text)
    if required:
        return f"{text.replace(f'{required[1]}.', '--')}\n  {where_from(required[1], '.model' in text)}"
    module = re.search(r"No module named '([\w.]+)'", text)
    if module:
        return f"{text}\n  Install it; or, if it is a file of yours, run this in its folder, or with that in PYTHONPATH"
    return text + _suggestion(asked, known, key, name)


def _suggestion(asked: list[str], known: list[str], key: re.Match[str] | None, name: re.Match[str] | None) -> str:
    """Suggest names for those that are not known: of an option, of a class, or of something else."""
    close = next((found for word in asked if (found := similar(word, known))), [])
    if key and "." not in key[1]:
        close = [f"--{option}" for option in options_named(key[1], known)] or close
    if name and not close:
        return f"\n  A class of yours is named with its module, as in mymodule.{name[1]}"
    return f"\n  Did you mean: {', '.join(dict.fromkeys(close))}?" if close else ""


_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": "a list"}


def in_one_line(text: str, message: str) -> str:
    """Say what is wrong with which option, of a message that names it in many lines; any other one is unchanged.

    Args:
        text: The message without its noise.
        message: The whole message, which says the value.
    """
    keys = re.findall(r'Parser key "([\w.]+)":', text)
    classes = re.findall(r"class_path[ =]'([\w.]+)'", text)
    if not keys:
        return re.sub(r"argument (--\w+): expected one", r"\1, or an option that begins with \1., needs one", text)
    owner = classes[-1].rpartition(".")[2] if classes else ""
    inner = re.search(r"(?m)(?:Got value: |, val=)(?!Namespace)(.+?)(?:\. Got value: .*|\))?$", message)
    value = inner or re.search(r"(?m)Given value: (.+)$", message)
    shown = value[1].strip("'") if value and len(value[1]) < 80 else ""
    problems, expected = list[str](), list[str]()
    for line in text.splitlines():
        problem = re.sub(r'Parser key "[\w.]+":|^ *- |Type .* expects a function or a callable class: ', "", line)
        problem = re.sub(r"\.? Got value: .*", "", problem).strip()
        if expects := re.fullmatch(r"Expected a (?:<class '(?:\w+\.)*(\w+)'>|typing.Literal\[(.*)\])", problem):
            expected.append(f"one of {expects[2]}" if expects[2] else _WORDS.get(expects[1], f"a {expects[1]}"))
        elif problem and not problem.startswith("Problem with given class_path"):
            problems.append(problem)
    told = "; ".join(problems) or f"it must be {' or '.join(expected)}{f', and is {shown}' if shown else ''}"
    return _with_owner(keys, owner, _in_words(told, shown))


def _in_words(told: str, shown: str) -> str:
    """Say in words of this package what jsonargparse finds wrong with a value, which is `shown`, or empty if long."""
    kind = re.search(r"(?:Import path does not correspond to|Not) a (?:valid )?subclass of (\w+)", told)
    if kind:
        told = f"{shown or 'the value'} is not a subclass of {kind[1]}"
    elif "is abstract" in told:
        told = f"{shown or 'the class'} is a base class; name one of its subclasses"
    elif "Option 'class_path' is not accepted" in told:  # jsonargparse took all for arguments, since one was among them
        told = f"a class has a class_path and its init_args, and nothing beside them (given: {shown})"
    elif "NoneType" in told or "object has no" in told or "not iterable" in told:  # jsonargparse expected another type
        told += f" (given: {shown})"
    told = re.sub(r"Unexpected import path format: (.*)", r"\1 is not the name of a class", told)
    function = re.search(r"Expected '([\w.]+)' to be a function that returns <class '(\w+)'>", told)
    if function:
        end = function[1].rpartition(".")[2]
        told = f"{function[1]} must say what it returns: def {end}(num_classes: int) -> torch.nn.Module"
    return told


def _with_owner(keys: list[str], owner: str, told: str) -> str:
    """Name the option with the given keys, and the class whose argument it is."""
    told = told.replace("the following arguments are required:", f"{owner} requires")
    if owner == "ReduceLROnPlateau":
        return PLATEAU
    if owner in ("ImageClassifier", "ImageDataModule") and "is not accepted" in told:
        return f"--{keys[0]}: {told}: name the class first, --{keys[0]} CLASS"
    if owner:
        told = re.sub(r"(Option '[\w.]+' is not accepted)", rf"\1 by {owner}", told)
    return f"--{'.'.join(keys)}: {told}"


def where_from(subcommand: str, without_model: bool) -> str:
    """Where a command's data and model may come from, if neither is named, or the data of a `Trainer`'s checkpoint."""
    if not without_model and subcommand == "predict":
        return "To predict a folder of images: --data UnlabeledImages --data.root FOLDER"
    if not without_model and subcommand != "fit":
        return "The checkpoint does not say its data: give the options of the data that it was trained on"
    if subcommand == "fit":
        return "Or give a --config that has them, or --run_dir RUN --ckpt_path last to continue a run"
    return "Or give --ckpt_path FILE, or --run_dir RUN --ckpt_path best: a checkpoint has the settings of its run"


def argument_names(class_path: str) -> list[str]:
    """List the arguments of a class and of its bases."""
    bases = class_named(class_path).__mro__
    return sorted({a for base in bases for a in inspect.signature(base.__init__).parameters} - {"self", "kwargs"})


def parser_of_subcommands(parser: LightningArgumentParser) -> list[LightningArgumentParser]:
    """List the parsers of `fit`, `validate`, `test` and `predict`."""
    action = parser._subcommands_action
    return list(action._name_parser_map.values()) if action else []
