"""The Hub's check of a card's metadata, which the client asks for before it uploads a README.md."""

from typing import Any

import yaml
from flask import Blueprint, Response, jsonify
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id

from .access import payload

__all__ = ["blueprint", "front_matter"]

blueprint = Blueprint("cards", __name__, url_prefix="/api")

# https://huggingface.co/docs/hub/repositories-licenses
LICENSE_NAMES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m"
    " afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0"
    " cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0"
    " cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0"
    " cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl"
    " gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr"
    " mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr"
    " deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma"
    " unknown other"
)
LICENSES = frozenset(LICENSE_NAMES.split())
NO_METADATA = (
    "empty or missing yaml metadata in repo card (https://huggingface.co/docs/hub/model-cards#model-card-metadata)"
)


def front_matter(content: str) -> dict[str, Any]:
    """The metadata between the two lines `---` at the head of a card; none is an empty dict.

    Raises `yaml.YAMLError` where it is no YAML, or not a mapping.
    """
    lines = content.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}
    end = next(number for number, line in enumerate(lines[1:], 1) if line.strip() == "---")
    found = yaml.safe_load("\n".join(lines[1:end])) or {}
    if not isinstance(found, dict):
        raise yaml.YAMLError("the metadata is not a mapping")
    return found


@blueprint.post("/validate-yaml")
def validate() -> Response | tuple[Response, int]:
    card = payload()
    try:
        metadata = front_matter(card.get("content", ""))
    except yaml.YAMLError as error:
        return jsonify(errors=[{"message": f"YAML Metadata Error: {error}"}], warnings=[]), 400
    errors = find_errors(metadata) if metadata else []
    answer = jsonify(
        errors=[{"message": message} for message in errors],
        warnings=[] if metadata else [{"message": NO_METADATA}],
    )
    return answer, 400 if errors else 200


def find_errors(metadata: dict[str, Any]) -> list[str]:
    """What the Hub refuses: unknown licences, fields of the wrong type, impossible names, a broken index."""
    errors = []
    licenses = metadata.get("license", [])
    for name in [licenses] if isinstance(licenses, str) else licenses:
        if name not in LICENSES:
            errors.append(f'"license" must be one of the Hub\'s licence identifiers, not {name!r}')
    for key in ("language", "datasets", "metrics", "tags", "base_model"):
        values = metadata.get(key, [])
        if not isinstance(values, (str, list)) or not all(isinstance(value, str) for value in values):
            errors.append(f'"{key}" must be a string or a list of strings')
        elif key in ("datasets", "base_model"):
            errors += [f'"{key}": {problem}' for problem in bad_names([values] if isinstance(values, str) else values)]
    for key in ("pipeline_tag", "library_name", "license_name", "license_link"):
        if not isinstance(metadata.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    if "model-index" in metadata:
        try:
            model_index_to_eval_results(metadata["model-index"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            errors.append(f'"model-index" is not valid: {type(error).__name__}: {error}')
    return errors


def bad_names(names: list[str]) -> list[str]:
    problems = []
    for name in names:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            problems.append(str(error))
    return problems
