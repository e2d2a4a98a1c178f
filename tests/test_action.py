"""The GitHub Action: its shell steps run here as they stand in ``action.yml``, with a stand-in for ``gh`` alone."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs

ROOT = Path(__file__).parents[1]
WORKFLOWS = (*sorted(ROOT.glob(".github/workflows/*.yml")), *sorted(ROOT.glob("examples/workflows/*.yml")))
EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")
PINNED = re.compile(r"[\w./-]+@[0-9a-f]{40}")

pytestmark = [
    needs("yaml", "bash"),
]

GH = """#!/usr/bin/env bash
# What gh would do: $GH_FOLDER has its answer and the artifact of the base branch, and gets what was sent.
printf '%s\\n' "$@" '' >> "$GH_FOLDER/calls"
[[ ! -e $GH_FOLDER/refuse ]] || { echo "HTTP 403" >&2; exit 1; }
last=${@: -1}
case "$*" in
  "run download"*) mkdir -p "$last" && cp "$GH_FOLDER/base.json" "$last/memory.json" ;;
  *--jq*) cat "$GH_FOLDER/answer" ;;
  *) cp "${last#body=@}" "$GH_FOLDER/body" ;;
esac
"""


def load(path: Path) -> dict[str, Any]:
    import yaml

    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


@dataclass
class Runner:
    """Runs single steps of the action as GitHub's runner does: their ``run`` with their ``env``, outputs in files."""

    folder: Path
    inputs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the step of that name; what it outputs is for the next to see."""
        (step,) = [step for step in load(ROOT / "action.yml")["runs"]["steps"] if step["name"] == name]
        output = self.folder / "output"
        output.write_text("")
        env = os.environ | {
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_SERVER_URL": "https://github.test",
            "GITHUB_REPOSITORY": "team/models",
            "GITHUB_RUN_ID": "7",
            "RUNNER_TEMP": str(self.folder / "temp"),
            "GH_FOLDER": str(self.folder / "gh"),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            **self.environment,
            **{key: EXPRESSION.sub(self._value, value) for key, value in step["env"].items()},
        }
        result = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder / "project",
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.steps[step.get("id", name)] = dict(_outputs(output.read_text()))
        return result

    def report(self, name: str) -> Path:
        return Path(self.steps["run"]["folder"], name)

    def calls(self) -> list[str]:
        return (self.folder / "gh" / "calls").read_text().split("\n\n")

    def _value(self, match: re.Match[str]) -> str:
        context, _, name = match[1].partition(".")
        if context == "inputs":
            default = str(load(ROOT / "action.yml")["inputs"][name]["default"])
            return self.inputs.get(name, EXPRESSION.sub("", default))
        if context == "steps":
            step, output = name.split(".outputs.")
            return self.steps[step].get(output, "")
        return {"github.event.pull_request.number": "12"}[match[1]]


def _outputs(text: str) -> Iterator[tuple[str, str]]:
    for name, value, end, lines in re.findall(r"^(\w+)(?:=(.*)|<<(.+)\n((?:.*\n)*?)\3$)", text, re.MULTILINE):
        yield name, lines.removesuffix("\n") if end else value


def make_runner(folder: Path) -> Runner:
    for name in ("project", "temp", "gh", "bin"):
        (folder / name).mkdir()
    (folder / "bin" / "gh").write_text(GH)
    (folder / "bin" / "gh").chmod(0o755)
    (folder / "gh" / "answer").write_text("")
    (folder / "project" / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly -p no:cacheprovider\n")
    return Runner(folder, inputs={"python": sys.executable})


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return make_runner(tmp_path)


def write_test(runner: Runner, body: str, name: str = "test_it") -> None:
    source = f"import os, pytest\n@pytest.mark.in_worker\ndef {name}():\n    {body}\n"
    (runner.folder / "project" / f"{name}.py").write_text(source)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of one test, which needs 20 MB in the one and 120 MB in the other."""
    runner, kept = make_runner(tmp_path_factory.mktemp("runner")), tmp_path_factory.mktemp("reports")
    for name, megabytes in {"small": 20, "large": 120}.items():
        write_test(runner, f"bytearray({megabytes}_000_000)")
        assert runner.run("Run pytest").returncode == 0
        runner.report("memory.json").rename(kept / name)
    return {path.name: path for path in kept.iterdir()}


class TestTheFile:
    def test_what_is_in_an_input_never_becomes_a_command(self) -> None:
        for step in load(ROOT / "action.yml")["runs"]["steps"]:
            assert "${{" not in step.get("run", "")

    def test_every_input_is_used_and_every_used_one_declared(self) -> None:
        text = (ROOT / "action.yml").read_text()

        assert set(re.findall(r"\binputs\.([\w-]+)", text)) == set(load(ROOT / "action.yml")["inputs"])

    def test_a_step_reads_outputs_of_earlier_steps_only(self) -> None:
        earlier = set()
        for step in load(ROOT / "action.yml")["runs"]["steps"]:
            assert set(re.findall(r"\bsteps\.(\w+)\.", json.dumps(step))) <= earlier
            earlier.add(step.get("id"))

    @pytest.mark.parametrize("path", [ROOT / "action.yml", *WORKFLOWS], ids=lambda path: path.name)
    def test_other_peoples_actions_are_pinned_by_commit(self, path: Path) -> None:
        uses = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))

        ours = ("./", "pytest-llmmem/pytest-llmmem@")
        assert [each for each in uses if not each.startswith(ours) and not PINNED.fullmatch(each)] == []

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_the_workflows_grant_little_and_give_inputs_that_there_are(self, path: Path) -> None:
        workflow, inputs = load(path), set(load(ROOT / "action.yml")["inputs"])

        assert "write" not in workflow["permissions"].values()
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if step.get("uses", "").startswith(("./", "pytest-llmmem/")):
                    assert set(step.get("with", {})) <= inputs


class TestRun:
    @pytest.mark.parametrize(("body", "status"), [("pass", 0), ("os.abort()", 1)])
    def test_the_exit_status_is_pytests_and_the_reports_are_there(self, runner: Runner, body: str, status: int) -> None:
        write_test(runner, body)

        result = runner.run("Run pytest")

        assert result.returncode == status
        assert json.loads(runner.report("memory.json").read_text())["tests"]
        assert runner.report("memory.html").exists()

    def test_wrong_usage_is_pytests_too(self, runner: Runner) -> None:
        runner.inputs["args"] = "--no-such-option"

        assert runner.run("Run pytest").returncode == 4

    def test_arguments_are_quoted_as_in_a_shell(self, runner: Runner) -> None:
        write_test(runner, "pass", "test_one")
        write_test(runner, "pass", "test_two")
        runner.inputs["args"] = "-v -k 'one and not two'\n--llm-timeout=60"

        result = runner.run("Run pytest")

        assert "1 passed, 1 deselected" in result.stdout

    def test_an_open_quote_is_no_run_of_everything(self, runner: Runner) -> None:
        write_test(runner, "pass")
        runner.inputs["args"] = "-k 'one"

        result = runner.run("Run pytest")

        assert result.returncode != 0
        assert "passed" not in result.stdout

    @pytest.mark.parametrize("name", ["args", "model", "enforce", "sweep"])
    def test_nothing_in_an_input_is_expanded(self, runner: Runner, name: str) -> None:
        runner.inputs[name] = '$(touch pwned) `touch pwned` "; touch pwned; "'

        runner.run("Run pytest")

        assert not (runner.folder / "project" / "pwned").exists()

    def test_each_line_of_model_is_a_model(self, runner: Runner) -> None:
        (runner.folder / "project" / "test_it.py").write_text("def test_it(model_checkpoint):\n    pass\n")
        runner.inputs["model"] = "synthetic:tiny-llama\n\n  synthetic:tiny-neox?dtype=float32\n"
        runner.inputs["args"] = "-v"

        result = runner.run("Run pytest")

        assert "test_it[tiny-llama] PASSED" in result.stdout
        assert "test_it[tiny-neox?dtype=float32] PASSED" in result.stdout


@needs("torch", "transformers")
class TestSweep:
    def test_the_sweeps_reports_are_the_steps_and_its_matrix_is_the_summary(self, runner: Runner) -> None:
        runner.inputs["sweep"] = "nightly.toml"
        (runner.folder / "project" / "nightly.toml").write_text(
            'models = ["synthetic:tiny-llama", "synthetic:tiny-neox"]\nchecks = ["integrity"]\n'
        )

        result = runner.run("Run pytest")

        assert result.returncode == 0, result.stdout + result.stderr
        assert len(json.loads(runner.report("memory.json").read_text())["cells"]) == 2
        assert runner.report("memory.html").exists()
        summary = (runner.folder / "summary.md").read_text()
        assert summary.count("## Memory of isolated tests") == 1
        assert "| tiny-neox | ✓" in summary

    def test_models_beside_a_sweep_are_an_error(self, runner: Runner) -> None:
        runner.inputs |= {"sweep": "sweep.toml", "model": "synthetic:tiny-llama"}

        result = runner.run("Run pytest")

        assert result.returncode == 2
        assert "::error title=llmmem::the file of the sweep names models" in result.stdout


class TestOwnGroup:
    VERSION_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()

    @pytest.mark.skipif(VERSION_2, reason="control groups are of version 2: the next test")
    def test_without_one_pytest_runs_as_it_is_and_says_so(self, runner: Runner) -> None:
        write_test(runner, "assert 0")
        runner.inputs["enforce"] = "cgroup"

        result = runner.run("Run pytest")

        assert result.returncode == 1
        assert "::warning title=llmmem::no control group for pytest" in result.stdout
        assert "1 failed" in result.stdout

    @pytest.mark.skipif(not (VERSION_2 and "CI" in os.environ), reason="changes the control groups of this machine")
    def test_pytest_divides_its_own_and_the_group_is_gone_afterwards(self, runner: Runner) -> None:
        (runner.folder / "project" / "test_it.py").write_text(
            "import pytest\nfrom pathlib import Path\n"
            "@pytest.mark.max_ram('100MB')\n"
            "def test_it():\n"
            "    group = Path('/sys/fs/cgroup' + Path('/proc/self/cgroup').read_text().strip()[3:])\n"
            "    assert group.parent.name.startswith('llmmem-')\n"
            "    assert int((group / 'memory.max').read_text()) < 120_000_000\n"
        )
        runner.inputs["enforce"] = "cgroup"

        result = runner.run("Run pytest")

        assert result.returncode == 0, result.stdout + result.stderr
        assert not list(Path("/sys/fs/cgroup").glob("llmmem-*"))


class TestCompare:
    @pytest.fixture
    def grown(self, runner: Runner, reports: dict[str, Path]) -> Runner:
        """After a run whose test needs more than on the base branch."""
        runner.steps["run"] = {"folder": str(runner.folder / "temp")}
        shutil.copy(reports["large"], runner.report("memory.json"))
        shutil.copy(reports["small"], runner.folder / "gh" / "base.json")
        (runner.folder / "gh" / "answer").write_text("6\n")
        runner.inputs["base"] = "main"
        return runner

    @pytest.fixture
    def held(self, grown: Runner, reports: dict[str, Path]) -> Runner:
        """After a run whose test needs the same."""
        shutil.copy(reports["small"], grown.report("memory.json"))
        return grown

    def test_growth_is_told_everywhere_and_is_no_failure_unless_asked(self, grown: Runner) -> None:
        result = grown.run("Compare with the base branch")

        text = grown.steps["compare"]["text"]
        assert result.returncode == 0, result.stderr
        assert grown.steps["compare"]["grew"] == "true"
        assert "### Memory against `main`" in text
        assert "`test_it.py::test_it`" in text
        assert "https://github.test/team/models/actions/runs/7" in text
        assert (grown.folder / "summary.md").read_text().strip() == text.strip()
        assert grown.report("comparison.md").read_text().strip() == text.strip()

    def test_growth_fails_when_asked(self, grown: Runner) -> None:
        grown.inputs["fail-on-growth"] = "true"

        assert grown.run("Compare with the base branch").returncode == 1

    def test_what_held_does_not_fail(self, held: Runner) -> None:
        held.inputs["fail-on-growth"] = "true"

        result = held.run("Compare with the base branch")

        assert result.returncode == 0, result.stderr
        assert held.steps["compare"]["grew"] == "false"
        assert "1 held" in held.steps["compare"]["text"]

    def test_a_tolerance_that_is_none_is_an_error(self, held: Runner) -> None:
        held.inputs["tolerance"] = "a little"

        result = held.run("Compare with the base branch")

        assert result.returncode == 2
        assert "a little" in result.stderr
        assert held.steps["compare"]["grew"] == ""

    def test_a_branch_without_a_report_is_no_failure(self, grown: Runner) -> None:
        (grown.folder / "gh" / "answer").write_text("")
        grown.inputs["fail-on-growth"] = "true"

        result = grown.run("Compare with the base branch")

        assert result.returncode == 0, result.stderr
        assert "No run on `main` has an artifact `llmmem`" in grown.steps["compare"]["text"]
        assert "grew" not in grown.steps["compare"]

    def test_a_token_that_may_not_read_artifacts_is_named(self, grown: Runner) -> None:
        (grown.folder / "gh" / "refuse").touch()

        result = grown.run("Compare with the base branch")

        assert result.returncode == 0
        assert "give the job the permission 'actions: read'" in result.stdout

    def test_a_run_without_a_report_compares_nothing(self, grown: Runner) -> None:
        grown.report("memory.json").unlink()

        result = grown.run("Compare with the base branch")

        assert result.returncode == 0
        assert "pytest wrote no report" in result.stdout

    @pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
    @pytest.mark.parametrize(
        ("change", "chosen"),
        [
            ({}, "6"),
            ({"expired": True}, ""),
            ({"head_branch": "other"}, ""),
            ({"head_repository_id": 666}, ""),  # a fork's branch of the same name
            ({"id": 7}, ""),  # this very run
        ],
    )
    def test_the_base_is_a_run_of_this_repository_on_that_branch(
        self, held: Runner, change: dict[str, object], chosen: str
    ) -> None:
        held.run("Compare with the base branch")
        program = held.calls()[0].split("--jq\n")[1]
        run = {"id": 6, "head_branch": "main", "repository_id": 1, "head_repository_id": 1} | change
        artifact = {"expired": run.pop("expired", False), "workflow_run": run}

        found = subprocess.run(
            ["jq", "-r", program],
            input=json.dumps({"artifacts": [artifact]}),
            env=os.environ | {"BASE": "main", "GITHUB_RUN_ID": "7"},
            capture_output=True,
            text=True,
            check=True,
        )

        assert found.stdout.strip() == chosen


class TestComment:
    @pytest.fixture
    def compared(self, runner: Runner) -> Runner:
        runner.steps["run"] = {"folder": str(runner.folder / "temp")}
        runner.report("comparison.md").write_text("### Memory against `main`\n")
        return runner

    def test_the_first_is_posted(self, compared: Runner) -> None:
        result = compared.run("Comment")

        assert result.returncode == 0, result.stderr
        assert "POST\nrepos/team/models/issues/12/comments\n" in compared.calls()[1]
        assert (compared.folder / "gh" / "body").read_text() == "<!-- llmmem: llmmem -->\n### Memory against `main`\n"

    def test_the_next_takes_its_place(self, compared: Runner) -> None:
        (compared.folder / "gh" / "answer").write_text("41\n43\n")

        compared.run("Comment")

        assert "PATCH\nrepos/team/models/issues/comments/41\n" in compared.calls()[1]

    def test_a_token_that_may_not_write_is_no_failure(self, compared: Runner) -> None:
        (compared.folder / "gh" / "refuse").touch()

        result = compared.run("Comment")

        assert result.returncode == 0
        assert "which needs the permission 'pull-requests: write'" in result.stdout

    def test_it_is_no_longer_than_github_takes(self, compared: Runner) -> None:
        compared.report("comparison.md").write_text("| a row |\n" * 10_000)

        compared.run("Comment")

        assert len((compared.folder / "gh" / "body").read_text()) < 65_536


@needs("huggingface_hub")
class TestCommits:
    @pytest.fixture
    def hub(self, runner: Runner) -> Iterator[dict[str, str]]:
        """A Hub on this machine: commits by repository and revision."""
        commits: dict[str, str] = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = commits.get(self.path.removeprefix("/api/models/"))
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps({"id": "org/name", "sha": found}).encode())

            def log_message(self, *args: object) -> None:
                """Nothing: the test's output is pytest's."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            runner.environment = {
                "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "HF_HOME": "/models",
                "HF_HUB_OFFLINE": "0",
                "NO_PROXY": "127.0.0.1",
            }
            yield commits
            server.shutdown()
            thread.join()

    def find(self, runner: Runner, model: str) -> dict[str, str]:
        runner.inputs["model"] = model
        result = runner.run("Find the models' commits")
        assert result.returncode == 0, result.stderr
        return runner.steps["hub"]

    def test_a_branch_that_moved_is_another_key(self, runner: Runner, hub: dict[str, str]) -> None:
        hub["org/name/revision/main"] = "a" * 40
        before = self.find(runner, "org/name@main")
        hub["org/name/revision/main"] = "b" * 40
        after = self.find(runner, "org/name@main")

        assert before["key"] != after["key"]
        assert before["models"] == after["models"] == "org/name@main"
        assert after["folders"] == "/models/hub/models--org--name"

    def test_two_names_of_one_commit_are_one_key(self, runner: Runner, hub: dict[str, str]) -> None:
        hub["org/name"] = hub["org/name/revision/main"] = "a" * 40

        assert self.find(runner, "org/name")["key"] == self.find(runner, "synthetic:bert-base\norg/name@main")["key"]

    def test_what_is_made_here_needs_no_cache(self, runner: Runner, hub: dict[str, str]) -> None:
        assert self.find(runner, "synthetic:tiny-llama\n.\n") == {}

    def test_a_hub_that_does_not_know_the_model_costs_the_cache_only(self, runner: Runner, hub: dict[str, str]) -> None:
        assert self.find(runner, "org/name") == {}

    def test_what_names_no_model_stops_with_the_plugins_sentence(self, runner: Runner) -> None:
        runner.inputs["model"] = "polyglot"

        result = runner.run("Find the models' commits")

        assert result.returncode == 1
        assert "::error title=llmmem::--llm-model=polyglot: there is no folder" in result.stderr

    def test_a_finding_in_a_checkpoint_is_for_the_tests_and_no_checkpoint_is_an_error(self, runner: Runner) -> None:
        runner.environment = {"XDG_CACHE_HOME": str(runner.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        runner.steps["hub"] = {"models": "synthetic:tiny-llama\nsynthetic:tiny-neox"}
        assert runner.run("Fetch the models").returncode == 0
        for shard in (runner.folder / "cache").rglob("*.safetensors"):
            os.truncate(shard, shard.stat().st_size - 1)

        broken = runner.run("Fetch the models")
        runner.steps["hub"] = {"models": "org/nobody-has-fetched-this\nsynthetic:tiny-llama"}
        missing = runner.run("Fetch the models")

        assert broken.returncode == 0
        assert broken.stdout.count("found: ") == 2
        assert missing.returncode != 0
        assert "found: " not in missing.stdout
