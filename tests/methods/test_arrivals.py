import torch

from pixelcontrast.methods.arrivals import Arrivals


def test_values_come_back_in_order_with_their_notes():
    arrivals = Arrivals()
    arrivals.send("first", torch.tensor([1.0, 2.0]))
    arrivals.send("second", torch.tensor([3.0]))
    assert list(arrivals.arrived()) == [("first", [1.0, 2.0]), ("second", [3.0])]
    assert list(arrivals.arrived(wait=True)) == []


def test_what_is_still_on_its_way_waits_with_all_that_follows(monkeypatch):
    from pixelcontrast.methods import arrivals as module

    here = {"late": False, "early": True}
    monkeypatch.setattr(module._Sent, "is_here", lambda sent: here[sent.note])
    arrivals = Arrivals()
    arrivals.send("late", torch.zeros(1))
    arrivals.send("early", torch.ones(1))
    assert list(arrivals.arrived()) == []
    here["late"] = True
    assert [note for note, _ in arrivals.arrived()] == ["late", "early"]
