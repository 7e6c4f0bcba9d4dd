"""Would the tests notice? Changes one thing at a time in a module and runs the module's tests.

    pip install cosmic-ray
    python -m benchmarks.mutation                       every module of TESTS, all mutants
    python -m benchmarks.mutation training/muon.py      one of them
    python -m benchmarks.mutation --sample 20           20 mutants of each, always the same ones

A mutant is the module with one operator, comparison, number, condition or decorator changed (the
operators of cosmic-ray). It is killed if a test fails, needs more than ten times the processor time
of the unchanged module, or waits for ten minutes. Nothing on disk is changed: a forked process
imports the mutant in the module's place. Survivors are printed as line and change; some compute the
same as the original.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError, exit_with_sentence
from core.paths import ROOT

TESTS = {
    "core/bounded_json.py": ("bounded_json",),
    "core/paths.py": ("paths", "limits"),
    "core/precision.py": ("precision",),
    "training/objective.py": ("objective",),
    "training/optimizer_step.py": ("optimizer_step",),
    "training/muon.py": ("muon",),
    "training/ema.py": ("ema",),
    "training/checkpoint_files.py": ("checkpoint_files",),
    "core/statistics.py": ("statistics",),
    "evaluation/mmd.py": ("mmd",),
    "evaluation/memorisation.py": ("memorisation",),
    "sampling/request.py": ("request",),
    "webapp/queue.py": ("worker", "rest_api"),
    "webapp/auth.py": ("password_middleware", "password"),
    "webapp/login_attempts.py": ("login_attempts",),
    "webapp/client_address.py": ("client_address",),
    "webapp/allowed_hosts.py": ("allowed_hosts",),
    "webapp/http_security.py": ("http_security", "rest_api", "bad_requests"),
    "webapp/votes.py": ("votes",),
}
# Of cosmic-ray's 200 operators one replacement of each kind: the same test kills the others.
OPERATORS = (
    *(f"ReplaceBinaryOperator_{pair}" for pair in (
        "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul",
        "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in (
        "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE",
        "GtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is")),
    "ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "AddNot",
    "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop", "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak", "ExceptionReplacer",
)  # fmt: skip
TIMES_LONGER = 10  # processor time of a mutant's tests, before it counts as one that never ends
WAITED_SECONDS = 600  # likewise, for one that waits without computing: for a lock, or a named pipe


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change."""

    source: str
    change: str  # "12: a + b -> a - b"


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of OPERATORS; those that do not parse are left out,
    and those of annotations alone."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    found, meaning = {}, meaning_of(source)
    for name in OPERATORS:
        operator = plugins.get_operator(f"core/{name}")()
        for occurrence in range(10_000):
            changed = mutate_code(source, operator, occurrence)
            if changed is None:
                break
            if parses(changed) and meaning_of(changed) != meaning:
                found.setdefault(changed, Mutant(changed, difference(source, changed)))
    return list(found.values())


def parses(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def meaning_of(source: str) -> str:
    """What is run of it: without the annotations of functions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return ast.dump(tree)


def difference(before: str, after: str) -> str:
    """The changed lines in one: number, before, after."""
    old, new = before.splitlines(), after.splitlines()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            was, now = (" ".join(line.strip() for line in part) for part in (old[i:j], new[k:m]))
            return f"{i + 1}: {was}  ->  {now or '(nothing)'}"
    return "nothing"


class Substitute:
    """An import hook that gives a mutant in its module's place."""

    def __init__(self, path: str, source: str):
        self.name, self.path, self.source = path[:-3].replace("/", "."), path, source

    def find_spec(self, name, _path, _target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def create_module(self, _spec):
        return None

    def exec_module(self, module) -> None:
        module.__file__ = str(ROOT / self.path)
        exec(compile(self.source, module.__file__, "exec"), module.__dict__)


def tested(path: str, source: str, seconds: float) -> tuple[bool, float]:
    """Whether the module's tests pass with `source` in its place, in a process of their own with at
    most `seconds` of processor time; and the time that they took."""
    child = os.fork()
    if child == 0:
        os._exit(_run_tests(path, source, int(seconds) + 1))
    _, status, usage = os.wait4(child, 0)
    return status == 0, usage.ru_utime + usage.ru_stime


def _run_tests(path: str, source: str, seconds: int) -> int:
    import pytest

    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    signal.alarm(WAITED_SECONDS)
    sys.meta_path.insert(0, Substitute(path, source))
    files = [f"tests/test_{name}.py" for name in TESTS[path]]
    quick = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-W", "ignore")
    return int(pytest.main([*quick, *files]))


def preload() -> None:
    """Import what the tests need and no mutant is in, once for all forks."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import scipy.stats  # noqa: F401
    import torchmetrics  # noqa: F401
    from diffusers import StableDiffusionPipeline  # noqa: F401
    from transformers import CLIPModel, CLIPTextModel  # noqa: F401


def survivors_of(path: str, sample: int | None) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant of a module, and whether its tests killed it."""
    source = (ROOT / path).read_text(encoding="utf-8")
    mutants = mutants_of(source)
    if sample and sample < len(mutants):
        mutants = random.Random(path).sample(mutants, sample)
    passed, seconds = tested(path, source, 3600)
    if not passed:
        raise UserError(f"The tests of {path} fail without any change; mend that first.")
    for mutant in mutants:
        yield mutant, not tested(path, mutant.source, TIMES_LONGER * seconds + 10)[0]


def main() -> None:
    options = parse()
    preload()
    results = {}
    print("| module | mutants | killed | share |\n| --- | --- | --- | --- |")
    for path in options.modules:
        judged = list(survivors_of(path, options.sample))
        survivors = [mutant.change for mutant, killed in judged if not killed]
        killed = len(judged) - len(survivors)
        results[path] = {"mutants": len(judged), "killed": killed, "survivors": survivors}
        share = f"{killed / len(judged):.0%}" if judged else ""
        print(f"| {path} | {len(judged)} | {killed} | {share} |", flush=True)
    for path, result in results.items():
        for change in result["survivors"]:
            print(f"{path}:{change}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=list(TESTS))
    parser.add_argument("--sample", type=int, help="only so many mutants of each module")
    parser.add_argument("--output", type=Path, default=Path("outputs/mutation.json"))
    options = parser.parse_args()
    for path in options.modules:
        if path not in TESTS:
            raise UserError(f"No tests are known for {path}; choose from: {', '.join(TESTS)}.")
    if importlib.util.find_spec("cosmic_ray") is None:
        raise UserError("This needs the package cosmic-ray: pip install cosmic-ray")
    return options


if __name__ == "__main__":
    exit_with_sentence(main)
