from hand_lib.evaluation.published import PUBLISHED, published_rows


def test_every_published_row_names_its_source_and_has_a_plausible_number():
    for row in PUBLISHED:
        assert row.method and row.source
        errors = [e for e in (row.pa_mpjpe_mm, row.pa_mpvpe_mm) if e is not None]
        assert errors and all(4 < e < 40 for e in errors), row
        if row.f_5 is not None:
            assert 0 < row.f_5 < row.f_15 < 1
    assert len({(row.method, row.backbone) for row in PUBLISHED}) == len(PUBLISHED)


def test_rows_for_the_table_are_marked_as_published_with_data_and_alignment():
    rows = published_rows()
    assert len(rows) == len(PUBLISHED)
    assert {row["kind"] for row in rows} == {"published"}
    assert all("FreiHAND" in row["data"] and "PA" in row["alignment"] for row in rows)
    paper = next(row for row in rows if row["method"] == "YouTubeHand (paper)")
    assert (paper["pa_mpjpe_mm"], paper["pa_mpvpe_mm"], paper["f_5"]) == (8.4, 8.6, 0.614)


def test_numbers_that_were_not_read_at_a_source_are_not_listed():
    assert not {"HaMeR", "WiLoR", "PointHMR"} & {row.method for row in PUBLISHED}
