"""The routes beside Locust's own: the Cluster page, its live events, its buttons, and the files of finished runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

from flask import Blueprint, Response, abort, jsonify, render_template, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue, RouteCallable

from cluster.base.errors import ClusterError, UsageError
from cluster.faults.kinds import HEAL, KINDS
from loadgen.result.known import known_in
from loadgen.webui.cluster_view import KEEP_S, ClusterView
from loadgen.webui.origins import Guard
from loadgen.webui.runs import FILES, Runs
from viz.diagrams import palette, svg
from viz.diagrams.raft import state_machine

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result
    from loadgen.load.locust_types import WebUI

NAME = "raftload"
View = TypeVar("View", bound=RouteCallable)
FAULTS = (*(kind.name for kind in KINDS.values() if kind.button), HEAL)
# The form's fields in the order in which a person decides; Locust's page has them by alphabet.
GROUPS = {
    "Operations": ("mix", "operations", "warmup", "timeout", "read_consistency"),
    "Keys and values": ("key_size", "value_size", "key_space", "seed"),
    "Open loop": ("rate", "stages", "step", "arrivals", "max_in_flight"),
    "Connections": ("transport", "connections", "balance"),
}
_ROOT = re.compile(rb'(?=<div id="root">)')
# Locust's table rounds these two columns to 10 us in its script; the others it shows as they come.
_ROUNDED = re.compile(rb"(title:`(?:Median|Average) \(ms\)`,round:)2\b")
# No operation of ours tells Locust the length of a response: the column would show 0 for all.
_SIZE = re.compile(rb"\{key:`avgContentLength`,title:`[^`]*`(?:,round:\d)?\},")


def install(web_ui: WebUI, view: ClusterView, runs: Runs, guard: Guard) -> None:
    """Add the pages to Locust's web UI before it starts, and to its own page a link to them.

    Locust's UI is one React application: `extended_tabs` hold tables of statistics only, and its template has no
    place for more. The link is put before the element that React draws in, so nothing that React does removes it.
    """
    app = web_ui.app
    _order_fields(web_ui)
    guard.install(app, NAME)
    pages = Blueprint(NAME, __name__, url_prefix="/cluster", template_folder="templates", static_folder="static")

    def route(path: str, methods: Collection[str] = ("GET",)) -> Callable[[View], View]:
        """Add a view, behind Locust's login where that is on."""

        def add(view: View) -> View:
            pages.add_url_rule(path, view.__name__, web_ui.auth_required_if_enabled(view), methods=methods)
            return view

        return add

    @route("/")
    def cluster() -> str:
        return render_template(
            "cluster.html", token=guard.token, keep_s=KEEP_S, states=svg.render(state_machine("paper")), here="cluster"
        )

    @route("/colours.css")
    def colours() -> Response:
        return Response(palette.css('[data-theme="dark"]'), content_type="text/css; charset=utf-8")

    @route("/events")
    def events() -> Response:
        stream = (f"data: {json.dumps(document, separators=(',', ':'))}\n\n" for document in view.documents())
        return Response(_begun(stream), content_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @route("/act", methods=["POST"])
    def act() -> ResponseReturnValue:
        if not guard.has_token(request.headers):
            return jsonify(error="the token is missing or belongs to an earlier session: load the page again"), 403
        order = request.get_json(silent=True)
        fault, member = (order.get("fault"), order.get("member", "")) if isinstance(order, dict) else (None, "")
        if fault not in FAULTS or not isinstance(member, str) or not (member or fault == HEAL):
            return jsonify(error=f"expected a fault of {', '.join(FAULTS)} and a member"), 400
        try:
            return jsonify(view.act(fault, member).to_json())
        except UsageError as error:
            return jsonify(error=str(error)), 409
        except ClusterError as error:
            return jsonify(error=str(error)), 502

    @route("/runs")
    def run_list() -> ResponseReturnValue:
        rows = [_row(name, result, runs.files(name)) for name, result in reversed(runs.finished.items())]
        if request.args.get("format") == "json":
            return jsonify(rows)
        return render_template("runs.html", rows=rows, under_way=runs.under_way, here="runs")

    @route("/runs/<name>/<file>")
    def run_file(name: str, file: str) -> Response:
        if file not in FILES or name not in runs.folders:
            abort(404)
        return send_from_directory(
            runs.folders[name], file, mimetype=FILES[file], as_attachment="download" in request.args,
            download_name=f"{name}-{file}",
        )  # fmt: skip

    @app.after_request
    def amend(response: Response) -> Response:
        if response.status_code != 200:
            return response
        if request.endpoint == "locust.index":
            link = render_template(
                "nav.html", here="load", own_page=False, groups={title: names[0] for title, names in GROUPS.items()}
            ).encode()
            response.set_data(_ROOT.sub(lambda _: link, response.get_data(), count=1))
        elif request.endpoint == "locust.send_assets" and request.path.endswith(".js"):
            response.direct_passthrough = False
            response.set_data(_SIZE.sub(b"", _ROUNDED.sub(rb"\g<1>3", response.get_data())))
        return response

    app.register_blueprint(pages)


def _order_fields(web_ui: WebUI) -> None:
    """Give the form's fields to the page in the order of GROUPS, those of a user's own scenario before them."""
    web_ui.app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    order = [name for names in GROUPS.values() for name in names]
    update = web_ui.update_template_args

    def ordered() -> None:
        update()
        fields = web_ui.template_args["extra_options"]
        own = [name for name in fields if name not in order]
        web_ui.template_args["extra_options"] = {name: fields[name] for name in (*own, *order) if name in fields}

    web_ui.update_template_args = ordered


def _begun(stream: Iterator[str]) -> Iterator[str]:
    """Before the first event, how long a browser waits until it connects again, in milliseconds."""
    yield "retry: 1000\n\n"
    yield from stream


def _row(name: str, result: Result, files: list[str]) -> dict[str, object]:
    total = result["results"]["total"]
    assert total is not None, "every result has a total"
    latency = total["latency"]
    return {
        "name": name,
        "started_at": result["run"]["started_at"],
        "duration_s": result["run"]["duration_s"],
        "operations": total["operations"],
        "failed": total["failed"],
        "throughput_ops_s": total["throughput_ops_s"],
        "p50_ms": known_in(total, "p50_ms"),
        "p99_ms": known_in(total, "p99_ms"),
        "max_ms": latency["max_ms"] if latency else None,
        "verdict": result["verdict"],
        "diagnosis": found["cluster"] if (found := result.get("diagnosis")) else None,
        "files": {file: url_for(f"{NAME}.run_file", name=name, file=file) for file in files},
    }
