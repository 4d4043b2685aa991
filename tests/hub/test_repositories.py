"""The real client creates, describes and lists repositories on the Hub on loopback, and is told what it may not do."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from .server import LoopbackHub

CARD = b"---\nlicense: apache-2.0\npipeline_tag: text-generation\nlibrary_name: hfgpt\ntags: [gpt]\n---\n# A model\n"


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_a_token_is_known_with_its_role_and_organizations(hub: "LoopbackHub") -> None:
    me = HfApi().whoami()
    assert (me["name"], [found["name"] for found in me["orgs"]]) == ("tester", ["team"])
    assert me["auth"]["accessToken"]["role"] == "write"
    assert HfApi(token=hub.read_token).whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_of_nobody").whoami()  # noqa: S106


def test_a_repository_is_created_once(hub: "LoopbackHub") -> None:
    api = HfApi()
    url = api.create_repo("tester/model")
    assert (str(url), url.repo_type, url.repo_id) == (f"{hub.endpoint}/tester/model", "model", "tester/model")
    assert list(hub.repo("tester/model")) == [".gitattributes"]
    with pytest.raises(HfHubHTTPError, match="already created") as error:
        api.create_repo("tester/model")
    assert status(error) == 409
    assert api.create_repo("tester/model", exist_ok=True) == url
    assert api.create_repo("model", exist_ok=True) == url  # the user's own namespace


def test_a_model_and_a_data_set_may_share_a_name(hub: "LoopbackHub") -> None:
    api = HfApi()
    api.create_repo("team/name")
    url = api.create_repo("team/name", repo_type="dataset")
    assert (url.repo_type, str(url)) == ("dataset", f"{hub.endpoint}/datasets/team/name")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.json", repo_id="team/name", repo_type="dataset")
    assert "a.json" not in hub.repo("team/name")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("team/name", repo_type="space")


def test_a_private_repository_is_not_there_for_others(hub: "LoopbackHub") -> None:
    api = HfApi()
    api.create_repo("tester/secret", private=True)
    assert api.model_info("tester/secret").private
    with pytest.raises(RepositoryNotFoundError) as error:
        HfApi(token=False).model_info("tester/secret")
    assert status(error) == 401
    hub.add_repo("others/secret", {"a.txt": b"a"}, private=True)
    with pytest.raises(RepositoryNotFoundError) as error:
        api.model_info("others/secret")
    assert status(error) == 404
    api.update_repo_settings("tester/secret", visibility="public")
    assert not HfApi(token=False).model_info("tester/secret").private


def test_rights_are_checked_before_anything_is_written(hub: "LoopbackHub") -> None:
    hub.add_repo("others/model", {"a.txt": b"a"})
    HfApi().create_repo("tester/model")
    reader, stranger = HfApi(token=hub.read_token), HfApi(token=False)
    with pytest.raises(HfHubHTTPError, match="write token") as error:
        reader.create_repo("tester/other")
    assert status(error) == 403
    with pytest.raises(HfHubHTTPError, match="don't have the rights") as error:
        HfApi().create_repo("others/other")
    assert status(error) == 403
    file = {"path_or_fileobj": b"b", "path_in_repo": "a.txt"}
    for api, repo_id, expected in [
        (reader, "tester/model", 403),
        (HfApi(), "others/model", 403),
        (stranger, "tester/model", 401),
    ]:
        with pytest.raises(HfHubHTTPError) as error:
            api.upload_file(repo_id=repo_id, **file)
        assert status(error) == expected
    assert len(hub.repo("others/model").commits) == 2
    HfApi().auth_check("tester/model", write=True)
    with pytest.raises(HfHubHTTPError):
        HfApi().auth_check("others/model", write=True)


def test_a_gated_repository_says_so(hub: "LoopbackHub") -> None:
    hub.add_repo("others/gated", {"config.json": b"{}"}, gated=True)
    with pytest.raises(GatedRepoError, match="restricted"):
        HfApi().hf_hub_download("others/gated", "config.json")


def test_what_is_missing_is_named_as_the_hub_names_it(hub: "LoopbackHub") -> None:
    api = HfApi()
    hub.add_repo("team/model", {"a.txt": b"a"})
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("team/other")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("gpt2")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("team/model", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("team/model", "b.txt")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("team/model", "folder"))
    assert not api.file_exists("team/model", "b.txt")
    assert not api.revision_exists("team/model", "v9")
    assert not api.repo_exists("team/other")


def test_a_description_comes_from_the_commit_and_the_card(hub: "LoopbackHub") -> None:
    hub.add_repo("team/model", {"README.md": CARD, "model.safetensors": b"weights"})
    info = HfApi().model_info("team/model", files_metadata=True)
    assert (info.sha, info.pipeline_tag, info.library_name) == (
        hub.repo("team/model").commit.oid,
        "text-generation",
        "hfgpt",
    )
    assert info.card_data is not None
    assert info.card_data.license == "apache-2.0"
    assert info.tags == ["hfgpt", "text-generation", "gpt", "license:apache-2.0"]
    sizes = {found.rfilename: found.size for found in info.siblings or []}
    assert sizes["model.safetensors"] == 7
    assert [found.rfilename for found in info.siblings or [] if found.lfs] == ["model.safetensors"]


def test_listings_come_page_by_page(hub: "LoopbackHub") -> None:
    hub.add_repo("team/many", {f"folder/{number}.txt": b"%d" % number for number in range(7)})
    hub.settings.page_size = 3
    api = HfApi()
    assert len(api.list_repo_files("team/many")) == 8
    listed = list(api.list_repo_tree("team/many", recursive=True, expand=True))
    assert len(listed) == 9
    assert [found.path for found in api.list_repo_tree("team/many")] == [".gitattributes", "folder"]
    assert len(list(api.list_repo_tree("team/many", "folder"))) == 7
    assert sum(path.endswith("/tree/main") for _, path, _ in hub.requests) == 7
    paths = api.get_paths_info("team/many", ["folder", "folder/3.txt", "missing"], expand=True)
    assert [found.path for found in paths] == ["folder", "folder/3.txt"]


def test_branches_and_tags_stand_for_commits(hub: "LoopbackHub") -> None:
    api = HfApi()
    api.create_repo("team/model")
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id="team/model")
    api.create_tag("team/model", tag="v1")
    api.create_branch("team/model", branch="work/small")
    api.create_branch("team/model", branch="work/small", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_tag("team/model", tag="v1")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="team/model", revision="work/small")
    api.upload_file(path_or_fileobj=b"3", path_in_repo="a.txt", repo_id="team/model")

    def content(revision: str) -> bytes:
        return Path(api.hf_hub_download("team/model", "a.txt", revision=revision)).read_bytes()

    assert [content(name) for name in ("v1", "work/small", "main", first.oid)] == [b"1", b"2", b"3", b"1"]
    refs = api.list_repo_refs("team/model")
    assert [found.name for found in refs.branches] == ["main", "work/small"]
    assert [(found.name, found.target_commit) for found in refs.tags] == [("v1", first.oid)]
    titles = [found.title for found in api.list_repo_commits("team/model")]
    assert titles == ["Upload a.txt with huggingface_hub"] * 2 + ["initial commit"]
    api.delete_tag("team/model", tag="v1")
    api.delete_branch("team/model", branch="work/small")
    assert not api.list_repo_refs("team/model").tags
    with pytest.raises(HfHubHTTPError):
        api.delete_branch("team/model", branch="main")


def test_a_deleted_repository_is_gone(hub: "LoopbackHub") -> None:
    api = HfApi()
    api.create_repo("team/model")
    api.delete_repo("team/model")
    assert not api.repo_exists("team/model")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("team/model")
    api.delete_repo("team/model", missing_ok=True)
