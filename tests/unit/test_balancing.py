"""Which endpoints are called where only the leader is, by what the members say."""

from __future__ import annotations

from cluster.base.endpoint import Endpoint
from loadgen.client.balancing import Leadership

A, B, C = ENDPOINTS = [Endpoint.parse(f"10.0.0.{number}:2379") for number in (1, 2, 3)]


def test_the_leader_of_the_newest_term_is_called() -> None:
    who = Leadership()
    assert who.chosen([A, B]) == set()
    who.said(A, 10, 2, 0)
    assert who.chosen([A, B]) == set()
    who.said(B, 11, 2, 11)
    assert who.chosen([A, B]) == {B}
    who.said(A, 10, 3, 10)  # b is behind and still takes itself for the leader
    assert who.chosen([A, B]) == {A}
    who.silent(A)
    assert who.chosen([A, B]) == {B}
    who.said(B, 11, 4, 10)  # known, although silent now
    assert who.chosen([A, B]) == {A}
    who.said(B, 11, 5, 99)  # a member that none of the endpoints stands for
    assert who.chosen([A, B]) == {A, B}
    who.silent(B)
    assert who.chosen([A, B]) == set()


def test_a_leader_that_was_not_asked_yet_is_waited_for() -> None:
    leadership = Leadership()
    leadership.said(A, 1, 4, 3)
    leadership.forget(B)  # its connection is not there yet
    assert leadership.chosen(ENDPOINTS) == set()
    leadership.said(C, 3, 4, 3)
    assert leadership.chosen(ENDPOINTS) == {C}


def test_a_leader_that_no_endpoint_stands_for_is_reached_through_all() -> None:
    leadership = Leadership()
    leadership.said(A, 1, 4, 9)
    leadership.said(B, 2, 4, 9)
    assert leadership.chosen(ENDPOINTS) == set()
    leadership.silent(C)  # nothing answers there
    assert leadership.chosen(ENDPOINTS) == set(ENDPOINTS)
