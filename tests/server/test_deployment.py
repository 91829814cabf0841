"""What the Dockerfile and the monitoring example refer to exists. Neither is built or run here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from stretto.__main__ import build_parser
from stretto.server.config import ServerConfig

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "examples" / "monitoring"
PORT = ServerConfig().port


def load(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping."""
    value = yaml.safe_load(path.read_text())
    assert isinstance(value, dict)
    return value


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Path in the container to file or folder on the host."""
    parts = [volume.split(":") for volume in service["volumes"]]
    return {inside: MONITORING / outside for outside, inside, *_ in parts}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def the(name: str) -> str:
    (found,) = [rest for instruction, rest in instructions() if instruction == name]
    return found


def test_what_compose_mounts_exists_and_is_where_it_is_looked_for() -> None:
    services = load(MONITORING / "docker-compose.yml")["services"]
    for service in services.values():
        assert all(path.exists() for path in mounts(service).values())
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"]), "a fixed version"
    assert "/etc/prometheus/prometheus.yml" in mounts(services["prometheus"])
    grafana = mounts(services["grafana"])
    provisioning = grafana["/etc/grafana/provisioning"]
    (provider,) = load(provisioning / "dashboards" / "stretto.yml")["providers"]
    assert list(grafana[provider["options"]["path"]].glob("*.json"))


def test_grafana_asks_the_prometheus_that_asks_the_server() -> None:
    services = load(MONITORING / "docker-compose.yml")["services"]
    scrape = load(MONITORING / "prometheus.yml")
    (job,) = scrape["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert int(port) == PORT
    assert any(line.startswith(f"{host}:") for line in services["prometheus"]["extra_hosts"])
    folder = MONITORING / "grafana"
    (source,) = load(folder / "provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]
    panels = json.loads((folder / "dashboards" / "stretto.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


def test_the_image_starts_the_command_line_as_it_is() -> None:
    command, *arguments = json.loads(the("ENTRYPOINT"))
    assert command == "stretto"
    options = build_parser().parse_args([*arguments, "--model", "default"])
    assert (options.command, options.host, options.port) == ("serve", "0.0.0.0", PORT)
    assert the("EXPOSE") == str(PORT)
    probe = json.loads(the("HEALTHCHECK").partition("CMD ")[2])
    assert f"http://127.0.0.1:{PORT}/ready" in probe[-1]
    compile(probe[-1], "HEALTHCHECK", "exec")
    assert the("STOPSIGNAL") == "SIGTERM"


def test_the_image_installs_what_the_project_declares() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (torch,) = re.findall(r'"torch>=(\d+\.\d+),<(\d+\.\d+)"', project)
    version = re.findall(r"pytorch:(\d+)\.(\d+)", the("FROM"))[0]
    least, below = (tuple(map(int, bound.split("."))) for bound in torch)
    assert least <= tuple(map(int, version)) < below
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    wanted = [word for rest in installs for word in shlex.split(rest) if word.startswith(".[")]
    assert wanted == [".[cuda]"]
    assert re.search(r"^cuda = \[", project, re.MULTILINE)
