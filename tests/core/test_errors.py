from pixelcontrast.core.errors import DataError, did_you_mean, unknown_name


def test_message_says_what_where_and_how_to_fix():
    text = str(DataError("the mask is broken", where="a/b.png", fix="draw it again"))
    assert text.splitlines() == [
        "the mask is broken",
        "  where: a/b.png",
        "  fix:   draw it again",
    ]


def test_did_you_mean_prefers_close_names_and_lists_all_otherwise():
    assert did_you_mean("pica", ["pico", "u2pl"]) == "did you mean 'pico'?"
    assert did_you_mean("zzz", ["pico", "u2pl"]) == "known: pico, u2pl"
    assert "nothing" in did_you_mean("x", [])


def test_unknown_name_is_a_user_error():
    assert unknown_name("method", "pica", ["pico"]).exit_code == 2
