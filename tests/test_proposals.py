"""The CI job that tries the template's newest version: its shell code runs with a fake updater."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers.releases import commit, git

UPDATER = """#!/usr/bin/env bash
echo "$@" > "$RECORDS/uvx"
[[ -z $(git status --porcelain) ]] || exit 2
echo "what <changed> & how it was tested"
case $DOES in
  update) sed -i 's/^_commit: .*/_commit: 9.9.9/' .copier-answers.yml; git commit --quiet --all --message Update ;;
  conflict) git branch ostinato-update-9.9.9; exit 1 ;;
  refuse) exit 2 ;;
esac
"""
GH = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$RECORDS/gh"; cp "${@: -1}" "$RECORDS/body"\n'
HOOK = '#!/usr/bin/env bash\nenv | grep ^GIT_PUSH_OPTION_ > "$RECORDS/options" || true\n'


@dataclass
class Job:
    """A project with an origin, on a machine of CI."""

    project: Path
    origin: Path
    records: Path
    script: str
    env: dict[str, str]

    def run(self, does: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **self.env, "DOES": does, "RECORDS": str(self.records)}
        command = ["bash", "-eo", "pipefail", "-c", self.script]
        return subprocess.run(command, cwd=self.project, env=env, capture_output=True, text=True)

    def proposed(self) -> list[str]:
        """The branches that were pushed."""
        return git(self.origin, "for-each-ref", "--format=%(refname:short)", "refs/heads/ostinato*").split()

    def said(self, name: str) -> str:
        path = self.records / name
        return path.read_text() if path.exists() else ""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def script(project: Path, ci: str) -> str:
    """What the job's last step executes."""
    if ci == "github":
        job = yaml.safe_load((project / ".github/workflows/update.yml").read_text())["jobs"]["update"]
        return job["steps"][-1]["run"]
    (text,) = yaml.safe_load((project / ".gitlab-ci.yml").read_text())["update"]["script"]
    return text


@pytest.fixture(scope="module", params=["github", "gitlab"])
def rendered(request: pytest.FixtureRequest, render: Callable[..., Path], tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("rendered") / "project"
    return request.param, render(folder, ci=request.param, starting_point="regression")


@pytest.fixture
def job(rendered: tuple[str, Path], tmp_path: Path) -> Job:
    ci, project = rendered[0], shutil.copytree(rendered[1], tmp_path / "project")
    answers = project / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("_src_path", "_commit: 1.0.0\n_src_path"))
    git(project, "init", "--quiet", "--initial-branch=main")
    commit(project)
    origin, records, programs = tmp_path / "origin", tmp_path / "records", tmp_path / "programs"
    git(tmp_path, "clone", "--quiet", "--bare", str(project), str(origin))
    records.mkdir()
    programs.mkdir()
    executable(programs / "uvx", UPDATER)
    executable(programs / "gh", GH)
    executable(origin / "hooks/pre-receive", HOOK)
    git(origin, "config", "receive.advertisePushOptions", "true")
    (project / "uv.lock").write_text("written by uv sync\n")
    git(project, "remote", "add", "origin", str(origin))
    git(project, "config", f"url.{origin}.insteadOf", "https://update:secret@git.example.org/me/project.git")
    env = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "RUNNER_TEMP": str(tmp_path),
        "CI_SERVER_HOST": "git.example.org",
        "CI_PROJECT_PATH": "me/project",
        "CI_COMMIT_BRANCH": "main",
        "UPDATE_TOKEN": "secret",
    }
    return Job(project, origin, records, script(project, ci), env)


def test_an_update_that_passes_is_proposed_with_its_report(job: Job):
    done = job.run("update")
    assert done.returncode == 0, done.stderr
    assert job.said("uvx").split()[-2:] == ["ostinato", "update"]
    assert job.said("uvx").startswith("--from /")
    assert job.proposed() == ["ostinato-update-9.9.9"]
    assert "_commit: 9.9.9" in git(job.origin, "show", "ostinato-update-9.9.9:.copier-answers.yml")
    title = "Update the template: tested"
    if job.said("gh"):
        assert title in job.said("gh")
        assert "what <changed> & how it was tested" in job.said("body")
    else:
        assert f"merge_request.title={title}" in job.said("options")
        assert "what &lt;changed> &amp; how it was tested<br>" in job.said("options")
    assert "_commit: 1.0.0" in git(job.origin, "show", "main:.copier-answers.yml")


def test_one_that_needs_a_hand_is_proposed_too(job: Job):
    assert job.run("conflict").returncode == 0
    assert job.proposed() == ["ostinato-update-9.9.9"]
    assert "Update the template: needs a hand" in job.said("gh") + job.said("options")


def test_nothing_new_proposes_nothing(job: Job):
    assert job.run("nothing").returncode == 0
    assert job.proposed() == []
    assert job.said("gh") == ""


def test_a_refusal_fails_the_job_and_says_why(job: Job):
    done = job.run("refuse")
    assert done.returncode == 2
    assert "what <changed>" in done.stdout
    assert job.proposed() == []


def test_a_pull_request_that_cannot_be_opened_is_tried_again(job: Job):
    (job.records.parent / "programs/gh").write_text("#!/usr/bin/env bash\nexit 1\n")
    done = job.run("update")
    if not (job.project / ".github").exists():  # GitLab opens a merge request with the push
        assert done.returncode == 0
    else:
        assert done.returncode == 1
        assert job.proposed() == []


def test_branches_that_a_runner_kept_are_no_proposal(job: Job):
    git(job.project, "branch", "ostinato-update-0.0.1")
    git(job.project, "branch", "ostinato-update-0.0.2")
    assert job.run("refuse").returncode == 2
    assert job.proposed() == []
    assert job.run("conflict").returncode == 0
    assert job.proposed() == ["ostinato-update-9.9.9"]


def test_what_was_proposed_and_edited_stays(job: Job):
    git(job.origin, "branch", "ostinato-update-9.9.9", "main")
    before = git(job.origin, "rev-parse", "ostinato-update-9.9.9")
    done = job.run("update")
    assert done.returncode == 0
    assert "was proposed before" in done.stdout
    assert git(job.origin, "rev-parse", "ostinato-update-9.9.9") == before


def test_a_template_on_another_machine_is_said(job: Job):
    source = next(line for line in job.script.splitlines() if line.startswith("source="))
    job.script = job.script.replace(source, "source=/not/here")
    done = job.run("update")
    assert done.returncode == 0
    assert "is a folder on another machine" in done.stdout
    assert job.proposed() == []


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("gh:me/template", "git+https://github.com/me/template"),
        ("gl:me/template.git", "git+https://gitlab.com/me/template.git"),
        ("https://git.example.org/me/template.git", "git+https://git.example.org/me/template.git"),
        ("git+https://git.example.org/me/template", "git+https://git.example.org/me/template"),
        ("git@git.example.org:me/template.git", "git+ssh://git@git.example.org/me/template.git"),
        ("/a folder/template", "/a folder/template"),
    ],
)
def test_the_source_as_uv_takes_it(template: Path, written: str, taken: str):
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template), extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"]
    )
    assert str(environment.get_template("includes/source.jinja").module.source(written)) == taken


@pytest.mark.parametrize(
    ("ci", "updates"),
    [("github", "weekly"), ("github", "monthly"), ("github", "never"), *(("gitlab", u) for u in ("monthly", "never"))],
)
def test_how_often_is_asked(render: Callable[..., Path], tmp_path: Path, ci: str, updates: str):
    project = render(tmp_path / "new", ci=ci, updates=updates, starting_point="regression")
    stored = yaml.safe_load((project / ".copier-answers.yml").read_text())
    workflow, pipeline = project / ".github/workflows/update.yml", project / ".gitlab-ci.yml"
    assert stored["updates"] == updates
    assert workflow.exists() == (ci == "github" and updates != "never")
    if workflow.exists():
        job = yaml.safe_load(workflow.read_text())
        (when,) = job[True]["schedule"]  # `on` is a boolean in YAML 1.1
        assert when["cron"].split()[2:] == {"weekly": ["*", "*", "1"], "monthly": ["1", "*", "*"]}[updates]
        assert job["permissions"] == {"contents": "write", "pull-requests": "write"}
    if pipeline.exists():
        jobs = yaml.safe_load(pipeline.read_text())
        assert ("update" in jobs) == (updates != "never")
        assert jobs["tests"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE != "schedule"'}]


def test_without_ci_it_is_not_asked(render: Callable[..., Path], tmp_path: Path):
    project = render(tmp_path / "new", ci="none", starting_point="regression")
    assert "updates" not in yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert not (project / ".github").exists()
