"""What Docker says of images, whatever that is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node_agent.container.local_images import LocalImage, PullCount, PullProgress, image_of, images_of, keeps_in_containerd

ID = "sha256:" + "ab" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just(ID),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Id", "RepoTags", "RootFS", "Layers", "DriverStatus", "id", "status", "progressDetail"]), inner)
    ),
    max_leaves=12,
)


def test_an_image_is_read_from_a_list_and_from_what_docker_says_of_one() -> None:
    listed = {"Id": ID, "RepoTags": ["web:1", "<none>:<none>"], "RepoDigests": ["web@sha256:1", "<none>@<none>"], "Size": 1}
    told = {"Id": ID, "RepoTags": None, "RootFS": {"Type": "layers", "Layers": ["sha256:a", "sha256:b"]}}
    assert images_of([listed, {"Id": "x"}, None]) == [LocalImage(ID, ("web:1", "web@sha256:1"))]
    assert image_of(told) == LocalImage(ID, (), ("sha256:a", "sha256:b"))


def test_where_images_are_kept() -> None:
    assert keeps_in_containerd({"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]})
    assert not keeps_in_containerd({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]})


def test_the_bytes_of_a_pull_add_up() -> None:
    count = PullCount()
    count.take({"status": "Pulling from library/nginx", "id": "latest"})
    count.take({"status": "Downloading", "id": "a", "progressDetail": {"current": 10, "total": 100}})
    count.take({"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 50}})
    assert count.take({"status": "Extracting", "id": "b", "progressDetail": {"current": 1, "total": 50}}) == PullProgress(15, 150)
    assert count.take({"status": "Pull complete", "id": "a", "progressDetail": {}}) == PullProgress(105, 150)


@given(st.lists(JSON, max_size=3))
def test_anything_gives_a_value(answers: list[object]) -> None:
    count = PullCount()
    for answer in answers:
        image_of(answer)
        images_of(answer)
        keeps_in_containerd(answer)
        count.take(answer)
