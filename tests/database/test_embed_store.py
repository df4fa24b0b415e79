"""Embedding into the database: once each, batch by batch, whatever is broken or interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from psycopg.pq import TransactionStatus
from small_world import DIMENSION, PHOTOS, SEQUENCES, TOWNS, SmallWorld, photos

from geofix.codes import embed_store
from geofix.codes.embed import embed_images
from geofix.codes.embed_store import embed_all, load_encoder
from geofix.database.engine import connect
from geofix.database.queries import embed_work
from geofix.database.queries.embed_work import Work, count_work, work_pages
from geofix.database.queries.models import add_embeddings, find_model
from geofix.errors import BadInputError, NotFoundError
from geofix.ingest.photos import ingest_photos
from helpers import add_model

ALL = len(TOWNS) * SEQUENCES * PHOTOS


@pytest.fixture
def model(small: SmallWorld):
    """The tiny model under a second name, with nothing embedded; gone afterwards."""
    from geofix.codes.register import register_model
    from geofix.database.queries.models import delete_model

    with connect() as conn:
        row = register_model(conn, small.folder / "tiny", "second")
    yield row
    with connect() as conn:
        delete_model(conn, row)


def vectors(conn, name):
    rows = conn.execute(
        "SELECT e.photo_id, e.embedding FROM photo_embedding e JOIN model USING (model_id) WHERE name = %s"
        " ORDER BY 1",
        (name,),
    ).fetchall()
    return [row[0] for row in rows], np.array([row[1].to_numpy() for row in rows], np.float64)


def test_what_is_there_is_not_embedded_again(small):
    with connect() as conn:
        result = embed_all(conn, find_model(conn, "tiny"), "photos", workers=1)
        assert (result.embedded, result.skipped, result.failed) == (0, ALL, 0)
        air = embed_all(conn, find_model(conn, "tiny"), "aerial", workers=1)
        assert air.embedded == 0 and air.skipped > 0


def test_an_interrupted_run_is_continued_and_ends_like_a_whole_one(small, model, monkeypatch):
    monkeypatch.setattr(embed_store, "_STORE", 16)
    calls = []

    def dies(conn, *rest):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return add_embeddings(conn, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(embed_store.model_queries, "add_embeddings", dies)
        with pytest.raises(KeyboardInterrupt), connect() as conn:
            embed_all(conn, model, "photos", batch_size=8, workers=1)
    with connect() as conn:
        assert len(vectors(conn, "second")[0]) == 32  # two transactions of sixteen
        rest = embed_all(conn, model, "photos", batch_size=8, workers=1)
        assert (rest.embedded, rest.skipped) == (ALL - 32, 32)
        whole, second = vectors(conn, "tiny"), vectors(conn, "second")
    assert whole[0] == second[0] and np.allclose(whole[1], second[1], atol=2e-3)
    assert np.allclose(np.linalg.norm(second[1], axis=1), 1, atol=1e-3)


def test_a_broken_file_is_told_and_tried_again(small, tmp_path):
    root = photos(tmp_path / "more", towns=1, seed=9)
    with connect() as conn:
        ingest_photos(conn, root, dataset="more", metadata=root / "metadata.csv", workers=1)
        whole = (root / "0-0" / "0.jpg").read_bytes()
        (root / "0-0" / "0.jpg").write_bytes(whole[:100])
        (root / "0-0" / "1.jpg").unlink()
        model = find_model(conn, "tiny")
        result = embed_all(conn, model, "photos", datasets=["more"], workers=1)
        assert (result.embedded, result.failed) == (SEQUENCES * PHOTOS - 2, 2)
        assert len(result.failures) == 2 and all(reason for _, reason in result.failures)
        (root / "0-0" / "0.jpg").write_bytes(whole)
        again = embed_all(conn, model, "photos", datasets=["more"], workers=1)
        assert (again.embedded, again.failed, again.skipped) == (1, 1, SEQUENCES * PHOTOS - 2)
        from geofix.database.ownership import delete_dataset

        delete_dataset(conn, "more")


@pytest.mark.parametrize("kind", ["photos", "aerial"])
def test_no_transaction_is_open_while_pictures_are_embedded(small, model, monkeypatch, kind):
    """An hour's work would else keep every vacuum from wiping what was deleted meanwhile."""
    states = []

    def watched(encoder, items, **options):
        def watching():
            for item in items:
                states.append(conn.info.transaction_status)
                yield item

        return embed_images(encoder, watching(), **options)

    monkeypatch.setattr(embed_work, "PAGE", 7)
    monkeypatch.setattr(embed_store, "embed_images", watched)
    with connect() as conn:
        embed_all(conn, model, kind, batch_size=8, workers=1)
    assert len(states) > 14 and set(states) == {TransactionStatus.IDLE}


def test_failures_do_not_pile_up_where_nothing_is_stored(small, model, monkeypatch):
    held = []

    def failing(encoder, items, *, report, **options):
        for key, _ in items:
            report.add_failure(key, "broken")
            held.append(len(report.failures))
        return iter(())

    monkeypatch.setattr(embed_work, "PAGE", 7)
    monkeypatch.setattr(embed_store, "_FAILURES", 10)
    monkeypatch.setattr(embed_store, "embed_images", failing)
    with connect() as conn:
        result = embed_all(conn, model, "photos", workers=1)
    assert (result.failed, len(result.failures), result.embedded) == (ALL, 10, 0)
    assert max(held) == 7 and result.failures[0][1] == "broken"


def test_rows_of_photos_that_are_gone_or_there_already_are_left_out(small, model):
    with connect() as conn:
        (photo,) = conn.execute("SELECT min(photo_id) FROM photo_record").fetchone()
        unit = np.eye(DIMENSION)[0]
        rows = [(photo, unit), (10**12, unit)]
        assert add_embeddings(conn, "photo_embedding", model.model_id, rows) == 1
        assert add_embeddings(conn, "photo_embedding", model.model_id, rows) == 0
        assert count_work(conn, Work(model.model_id, "photos")) == (ALL, ALL - 1)
        assert count_work(conn, Work(model.model_id, "photos", ["streets"])) == (ALL, ALL - 1)
        assert count_work(conn, Work(model.model_id, "photos", ["ortho"])) == (0, 0)
        assert list(work_pages(conn, Work(model.model_id, "photos", ["ortho"]))) == []


@pytest.mark.parametrize("kind", ["photos", "aerial"])
def test_pages_hold_everything_once_in_the_order_of_ids(small, model, monkeypatch, kind):
    with connect() as conn:
        (whole,) = work_pages(conn, Work(model.model_id, kind))
        assert (len(whole),) * 2 == count_work(conn, Work(model.model_id, kind))
        assert whole == sorted(whole, key=lambda row: (row[1], row[0]))
        # Photos of one id on both sides of a page's end.
        for size in (1, 2, 7, len(whole)):
            monkeypatch.setattr(embed_work, "PAGE", size)
            pages = list(work_pages(conn, Work(model.model_id, kind)))
            assert [row for page in pages for row in page] == whole
            assert max(len(page) for page in pages) <= size
        first, last = whole[3][1], whole[9][1]
        within = [row for row in whole if first <= row[1] <= last]
        found = work_pages(conn, Work(model.model_id, kind, span=(first, last)))
        assert [row for page in found for row in page] == within


@pytest.mark.parametrize(
    ("kind", "name"), [("photos", "ortho"), ("aerial", "streets"), ("photos", "x' OR 1=1 --")]
)
def test_a_data_set_that_does_not_exist_is_named(small, kind, name):
    with connect() as conn, pytest.raises(NotFoundError, match="No data set of kind") as caught:
        embed_all(conn, find_model(conn, "tiny"), kind, datasets=["streets", name])
    assert name in str(caught.value)


def test_other_weights_in_the_directory_are_refused(small):
    with connect() as conn:
        add_model(conn, "impostor", DIMENSION)
        conn.execute(
            "UPDATE model SET directory_uri = %s WHERE name = 'impostor'", (str(small.folder / "tiny"),)
        )
        with pytest.raises(BadInputError, match="was registered with 000000000000"):
            load_encoder(find_model(conn, "impostor"), "ground")
        conn.rollback()


def test_the_stored_vector_is_the_encoders(small):
    with connect() as conn:
        encoder = load_encoder(find_model(conn, "tiny"), "ground", "cpu")
        path = small.photo(3, 2, 1)
        (_, wanted), *_ = list(embed_images(encoder, [(0, path)], workers=1))
        (found,) = conn.execute(
            "SELECT embedding FROM photo_embedding JOIN photo_record USING (photo_id) WHERE uri = %s",
            (str(path),),
        ).fetchone()
    assert np.allclose(found.to_numpy(), wanted[0], atol=2e-3)
