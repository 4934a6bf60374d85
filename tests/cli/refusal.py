"""The check that bad input is refused as it should be."""


def refused(result, *words):
    """Check exit code 2, no output, and one short sentence with these words on standard error."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("optlaws: ")
    assert err.count("\n") == 1
    assert len(err) < 500
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert "unexpected failure" not in err
