"""`policy list|export|import|check`: a merchant's retry policies as files."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from accounts.models import Merchant
from accounts.services import merchant_require
from recovery_site.common.commands import RecoveryCommand
from retries.documents import documents_diff
from retries.models import PolicyVersion
from retries.policy import PRESETS, PolicyError, parse_policy, preset_document
from retries.services.cases import policy_version_create, policy_version_current


class Command(RecoveryCommand):
    help = "List, export, check and import retry policies; an import is a new version and changes no running case."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", choices=["list", "export", "import", "check"])
        parser.add_argument("--merchant", metavar="NAME", help="whose policy (name or id)")
        parser.add_argument("--number", type=int, help="export: which one (default: in force)")
        parser.add_argument("--preset", choices=PRESETS, help="a shipped document instead of a merchant's or a file")
        parser.add_argument("--file", help="import, check: the document (- is standard input)")
        parser.add_argument("--note", default="", help="import: why, for the list of versions")
        parser.add_argument("--dry-run", action="store_true", help="import: show what would change, store nothing")

    def run(self, **options: Any) -> Mapping[str, Any]:
        action = {"list": self._list, "export": self._export, "import": self._import, "check": self._check}
        return action[options["action"]](options)

    def _list(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        versions = PolicyVersion.objects.filter(merchant=_merchant(options)).order_by("-version")
        return {"presets": list(PRESETS), "versions": [_shown(version) for version in versions]}

    def _export(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if options["preset"]:
            return {"preset": options["preset"], "document": preset_document(options["preset"])}
        merchant = _merchant(options)
        if options["number"] is None:
            version = policy_version_current(merchant.pk)
        else:
            found = PolicyVersion.objects.filter(merchant=merchant, version=options["number"]).first()
            if found is None:
                raise CommandError(f"{merchant} has no version {options['policy_version']}; `policy list` shows them.")
            version = found
        return {"merchant": merchant.public_id, **_shown(version), "document": version.document}

    def _import(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        merchant, document = _merchant(options), _document(options)
        now = policy_version_current(merchant.pk)
        changes = [
            {"field": change.pointer, "before": change.before, "after": change.after}
            for change in documents_diff(now.document, document)
        ]
        _checked(document)
        if options["dry_run"]:
            return {"merchant": merchant.public_id, "version": None, "changes": changes}
        version = policy_version_create(
            merchant_id=merchant.pk,
            document=document,
            note=options["note"] or "Imported",
            created_by="operator",
            based_on=now.version,
        )
        return {"merchant": merchant.public_id, "version": version.version, "changes": changes}

    def _check(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        policy = _checked(_document(options))
        return {"name": policy.name, "segments": [segment.name for segment in policy.segments]}

    def human(self, result: Mapping[str, Any]) -> str:
        if "document" in result:
            return json.dumps(result["document"], indent=2, ensure_ascii=False)
        if "versions" in result:
            lines = [f"{one['version']:>5}  {one['created_at'][:16]}  {one['note']}" for one in result["versions"]]
            return "\n".join(lines) or "No version yet: the shipped preset `standard` holds."
        if "changes" in result:
            lines = [f"{one['field']}: {one['before'] or '-'} -> {one['after'] or '-'}" for one in result["changes"]]
            stored = f"Stored as version {result['version']}." if result["version"] else "Nothing was stored."
            return "\n".join([*lines, stored])
        return f"{result['name']} is a valid policy."


def _merchant(options: Mapping[str, Any]) -> Merchant:
    if not options["merchant"]:
        raise CommandError("Say whose policy: --merchant NAME.")
    return merchant_require(options["merchant"])


def _document(options: Mapping[str, Any]) -> dict[str, Any]:
    """The document of --file or --preset; what `export --json` wrote is unwrapped."""
    if options["preset"]:
        return preset_document(options["preset"])
    if not options["file"]:
        raise CommandError("Say which document: --file PATH, --file - or --preset NAME.")
    try:
        text = sys.stdin.read() if options["file"] == "-" else Path(options["file"]).read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{options['file']} cannot be read as JSON: {error}.") from error
    inner = value.get("document") if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else value


def _checked(document: object) -> Any:
    try:
        return parse_policy(document, default_max_attempts=settings.RETRY_MAX_ATTEMPTS)
    except PolicyError as error:
        raise CommandError("The policy is not valid.\n" + "\n".join(map(str, error.problems))) from error


def _shown(version: PolicyVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "note": version.note,
        "created_by": version.created_by,
        "created_at": version.created_at.isoformat(),
    }
