"""store.lua, verb by verb: the states table, begin's five rules, fence and ends."""

import pytest
from redis.exceptions import ResponseError

from channels_progress.run import FINISHED
from channels_progress.store import nonce
from tests.core.hand import LOST, Hand, lease

DAY = 86_400_000  # ms


# -- create -----------------------------------------------------------------------


def test_create_makes_a_queued_run(run):
    answer = run.create(hop=1)
    assert (answer.code, answer.state, answer.extra) == ("created", "queued", [1])
    assert run.snapshot.queued == run.snapshot.changed == answer.now


def test_create_leaves_a_run_that_exists(run):
    run.create(owner="first")
    assert run.create(owner="second").code == "exists"
    assert run.snapshot.owner == "first"


def test_create_sent_twice_gets_its_first_answer(run):
    word = nonce()
    assert run.create(nonce=word).code == run.create(nonce=word).code == "created"
    assert run.rev == 1


def test_a_withdrawn_run_is_created_with_the_next_hop(run):
    run.create()
    run.withdraw()
    answer = run.create()
    assert (answer.code, answer.state, answer.extra) == ("created", "queued", [2])
    assert run.snapshot.ended is None
    assert run.snapshot.reason is None


def test_a_cancelled_run_is_not_created_again(run):
    run.create()
    run.cancel()
    assert run.create().code == "exists"
    assert run.snapshot.state == "cancelled"


# -- begin, rule by rule ----------------------------------------------------------


def test_begin_takes_the_lease(run):
    run.create()
    answer = run.begin(worker="node|main|7")
    assert (answer.code, answer.state) == ("begun", "running")
    assert run.stored.lease == lease(answer)
    assert run.stored.worker == "node|main|7"
    assert run.snapshot.started == answer.now


def test_1_without_a_hash_begin_says_so(run):
    assert run.begin().code == "missing"
    assert run.stored is None


def test_1_without_a_hash_begin_makes_it_when_told_to(run):
    answer = run.begin(make=True, epoch="e9", owner="o", attempt=2, cursor="[5]")
    assert (answer.code, answer.state) == ("begun", "running")
    assert (run.snapshot.attempt, run.stored.cursor) == (2, "[5]")


def test_2_an_older_hop_is_refused(run):
    number = run.running()
    run.end(number, 1, "waiting", reason="retry", next=2)
    assert run.begin(hop=1).code == "old"
    assert run.begin(hop=2, kind="retry").code == "begun"


@pytest.mark.parametrize("state", sorted(FINISHED | {"paused"}))
def test_2_a_run_that_is_over_or_paused_refuses(run, state):
    number = run.running()
    run.end(number, 1, state)
    assert run.begin().code == state
    assert run.begin(hop=2).code == state


def test_3_a_newer_hop_takes_over_at_once(run):
    first = run.running()
    second = lease(run.begin(hop=2, kind="retry"))
    assert second > first
    assert run.snapshot.attempt == 2
    assert run.end(first, 1, "waiting", next=2).code == "superseded"


def test_3_a_message_beside_a_lease_that_speaks_is_a_duplicate(run):
    number = run.running(worker="node|main|7")
    answer = run.begin()
    due, holder, worker = answer.extra
    assert answer.code == "duplicate"
    assert 0 < int(due) <= LOST
    assert (int(holder), worker) == (number, b"node|main|7")


def test_3_only_the_copy_with_the_mark_is_heard(run):
    run.running()
    assert run.begin(fresh="m1").code == "duplicate"
    assert run.begin(fresh="m2").code == "dropped"
    assert run.begin(mark="m1", fresh="m3").code == "duplicate"
    assert run.begin(mark="m1", fresh="m4").code == "dropped"


def test_3_a_mark_that_could_not_be_published_is_taken_back(run):
    run.running()
    run.begin(fresh="m1")
    run.say("unmark", mark="m1")
    assert run.begin(fresh="m2").code == "duplicate"


def test_3_another_copys_mark_is_not_taken_back(run):
    run.running()
    run.begin(fresh="m1")
    run.say("unmark", mark="m0")
    assert run.begin(fresh="m2").code == "dropped"


def test_3_a_lost_lease_is_taken_over(run):
    first = run.running()
    run.silence()
    assert lease(run.begin()) > first
    assert run.snapshot.attempt == 2


def test_3_a_dead_childs_lease_is_taken_over(run):
    first = run.running()
    assert lease(run.begin(dead=first)) > first


def test_3_a_redelivery_is_not_dropped_for_a_copy_that_may_never_have_been(run):
    run.running()
    assert run.begin(fresh="m1").code == "duplicate"
    assert run.begin(fresh="m2").code == "dropped"
    assert run.begin(fresh="m3", redelivered=True).code == "duplicate"
    assert run.begin(mark="m1").code == "dropped"
    assert run.begin(mark="m3").code == "duplicate"


def test_3_a_redelivery_publishes_itself_afresh_before_it_takes_over(run):
    run.running()
    run.silence()
    assert run.begin(redelivered=True, fresh="m1").code == "afresh"
    assert run.begin().code == "dropped"
    assert run.begin(redelivered=True, fresh="m2").code == "afresh"
    assert run.begin(mark="m1").code == "dropped"
    assert run.begin(mark="m2").code == "begun"


def test_3_a_parked_copy_without_its_mark_may_begin_once_the_mark_is_forgotten(run):
    run.running()
    run.begin(fresh="m1")
    run.silence()
    run.store.client.hset(run.key, "mark_due", 1)
    assert run.begin().code == "begun"


def test_4_a_cancel_that_was_asked_is_fulfilled(run):
    run.running()
    run.cancel()
    run.silence(LOST - 5000)
    run.store.client.hset(run.key, "seen", 1)
    answer = run.begin()
    assert (answer.code, answer.state) == ("ended", "cancelled")
    assert run.snapshot.reason == "asked"


def test_4_a_pause_that_was_asked_is_fulfilled(run):
    run.running()
    run.pause()
    run.silence()
    answer = run.begin()
    assert (answer.code, answer.state) == ("ended", "paused")
    assert run.snapshot.asked is None


def test_4_a_hop_that_began_three_times_without_its_cursor_moving_has_failed(run):
    run.running()
    for _ in range(2):
        run.silence()
        assert run.begin().code == "begun"
    run.silence()
    answer = run.begin()
    assert (answer.code, answer.state) == ("ended", "failed")
    assert run.snapshot.reason == "restarts"
    assert run.snapshot.as_dict()["error"] == {"message": "Its worker stopped 3 times."}


def test_4_a_cursor_that_moves_lets_a_hop_begin_again(run):
    run.running()
    for n in range(5):
        run.silence()
        number = lease(run.begin())
        run.report(number, 1, cursor=f"[{n}]")
    assert run.snapshot.attempt == 6


def test_4_a_newer_hop_that_takes_over_counts_anew(run):
    run.running()
    for _ in range(2):
        run.silence()
        run.begin()
    assert run.begin(hop=2, kind="poll").code == "begun"
    assert run.snapshot.attempt == 3


def test_4_the_next_hop_counts_anew(run):
    run.running()
    for _ in range(2):
        run.silence()
        number = lease(run.begin())
    run.end(number, 1, "waiting", reason="poll", next=2)
    number = lease(run.begin(hop=2, kind="poll"))
    assert run.snapshot.attempt == 3


def test_5_every_begin_has_a_larger_lease(run):
    numbers = [run.running()]
    for _ in range(2):
        run.silence()
        numbers.append(lease(run.begin()))
    assert numbers == sorted(set(numbers))


def test_a_lease_is_larger_than_any_from_before_the_store_lost_the_run(run):
    before = run.running()
    run.lose()
    assert lease(run.begin(make=True, epoch="e2")) > before


@pytest.mark.parametrize("kind", ["poll", "replace", "resume"])
def test_what_is_no_retry_stays_the_same_attempt_with_its_numbers(run, kind):
    number = run.running()
    run.report(number, 1, doc=run.doc(current=7))
    run.end(number, 2, "waiting", reason=kind, doc=run.doc(current=8), next=2)
    answer = run.begin(hop=2, kind=kind)
    assert run.snapshot.attempt == 1
    assert b'"current":8' in answer.extra[2]


def test_a_retry_is_the_next_attempt_and_begins_at_zero(run):
    number = run.running()
    run.end(number, 1, "waiting", reason="retry", doc=run.doc(current=8), next=2)
    answer = run.begin(hop=2, kind="retry")
    assert run.snapshot.attempt == 2
    assert b'"current":0' in answer.extra[2]


def test_the_next_attempt_gets_the_cursor(run):
    number = run.running()
    run.report(number, 1, cursor='{"row":40}')
    run.silence()
    assert run.begin().extra[1] == b'{"row":40}'


def test_another_task_gets_no_cursor_but_its_own(run):
    number = run.running()
    run.report(number, 1, cursor='{"row":40}')
    run.end(number, 2, "waiting", reason="replace", next=2)
    number, cursor, *_ = run.begin(hop=2, kind="replace").extra
    assert (cursor, run.stored.cursor) == (b"", "")
    run.report(int(number), 1, cursor='{"row":3}')
    run.silence()
    assert run.begin(hop=2, kind="replace").extra[1] == b'{"row":3}'


def test_the_longest_silence_is_remembered(run):
    number = run.running()
    run.silence(LOST // 2)
    run.report(number, 1)
    run.report(number, 2)
    assert LOST // 2 <= run.stored.silence < LOST


# -- sent twice -------------------------------------------------------------------


def twice(run, call):
    """Send a call as a client does whose connection was cut: both answers' codes."""
    return run.send(call).code, run.send(call).code


def test_begin_sent_twice_begins_once(run):
    run.create()
    call = run.begin_call()
    first, second = run.send(call), run.send(call)
    assert lease(first) == lease(second)
    assert run.snapshot.rev == 2


def test_a_duplicates_begin_sent_twice_is_parked_once(run):
    run.running()
    assert twice(run, run.begin_call(fresh="m1")) == ("duplicate", "duplicate")
    assert run.begin(fresh="m2").code == "dropped"


def test_a_redeliverys_begin_sent_twice_is_published_afresh(run):
    run.running()
    run.silence()
    call = run.begin_call(redelivered=True, fresh="m1")
    assert twice(run, call) == ("afresh", "afresh")


@pytest.mark.parametrize("wish", ["cancel", "pause"])
def test_a_begin_that_fulfils_a_wish_sent_twice_says_so_twice(run, wish):
    run.running()
    run.say(wish, lost=LOST)
    run.silence()
    assert twice(run, run.begin_call()) == ("ended", "ended")


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_wish_fulfilled_at_once_sent_twice_is_done_twice(run, verb):
    run.create()
    assert run.say(verb, lost=LOST).code == run.say(verb, lost=LOST).code == "done"
    assert run.rev == 2


def test_withdraw_sent_twice_is_done_twice(run):
    run.create()
    assert run.withdraw().code == run.withdraw().code == "done"


def test_repause_sent_twice_is_done_twice(run):
    run.create()
    run.pause()
    run.resume()
    assert run.say("repause", hop=2).code == run.say("repause", hop=2).code == "done"


def test_bury_sent_twice_is_heard_twice(run):
    number = run.running()
    values = {"lease": number, "reason": "worker_lost"}
    assert run.bury(**values).code == run.bury(**values).code == "ok"
    assert run.rev == 3


def test_resume_sent_twice_publishes_one_hop(run):
    run.create()
    run.pause()
    word = nonce()
    first, second = run.resume(nonce=word), run.resume(nonce=word)
    assert (first.code, first.extra) == (second.code, second.extra) == ("resumed", [2])


def test_an_end_sent_twice_gets_its_first_answer(run):
    number = run.running()
    assert run.end(number, 1).code == run.end(number, 1).code == "ok"
    assert run.rev == 3


def test_a_report_sent_twice_counts_once(run):
    number = run.running()
    run.report(number, 1, doc=run.doc(current=1))
    assert run.report(number, 1, doc=run.doc(current=1)).code == "ok"
    assert run.rev == 3


# -- fence ------------------------------------------------------------------------


def test_a_report_of_an_older_lease_is_refused(run):
    old = run.running()
    run.silence()
    run.begin()
    assert run.report(old, 99, doc=run.doc(current=99)).code == "superseded"
    assert run.end(old, 100).code == "superseded"
    assert run.snapshot.state == "running"


def test_an_older_report_is_ignored_without_complaint(run):
    number = run.running()
    run.report(number, 5, doc=run.doc(current=5))
    assert run.report(number, 4, doc=run.doc(current=4)).code == "ok"
    assert run.snapshot.as_dict()["current"] == 5


def test_an_end_counts_though_a_later_report_came_first(run):
    number = run.running()
    run.report(number, 7, doc=run.doc(current=5))
    assert run.end(number, 6).code == "ok"
    assert run.snapshot.state == "succeeded"


def test_a_report_after_the_end_is_refused(run):
    number = run.running()
    run.end(number, 1)
    assert run.report(number, 2, doc=run.doc(current=1)).code == "superseded"
    assert run.snapshot.state == "succeeded"


def test_the_first_end_of_a_lease_wins(run):
    number = run.running()
    run.end(number, 1, "failed")
    assert run.end(number, 2, "succeeded").code == "superseded"
    assert run.snapshot.state == "failed"


def test_a_write_onto_a_vanished_key_is_told_so(run):
    number = run.running()
    run.lose()
    assert run.report(number, 1).code == "vanished"
    assert run.stored is None


@pytest.mark.parametrize("verb", ["report", "end"])
def test_a_whole_write_onto_a_vanished_key_makes_it_again(run, verb):
    number = run.running()
    run.lose()
    state = {"state": "succeeded"} if verb == "end" else {}
    answer = run.restore(verb, number, 2, cursor="[9]", **state)
    assert (answer.code, answer.was) == ("ok", "")
    assert (run.snapshot.epoch, run.stored.cursor) == ("e2", "[9]")
    assert run.snapshot.as_dict()["current"] == 7


def test_a_whole_write_sent_twice_counts_once(run):
    number = run.running()
    run.lose()
    run.restore("report", number, 2)
    before = run.rev
    assert run.restore("report", number, 2).code == "ok"
    assert run.rev == before


def test_a_lease_from_before_the_loss_is_refused_by_the_one_after_it(run):
    old = run.running()
    run.lose()
    run.begin(make=True, epoch="e2")
    assert run.restore("report", old, 9).code == "superseded"


def test_a_hash_that_nobody_has_begun_gives_way_to_the_lease_that_speaks(run):
    number = run.running()
    run.lose()
    run.create(epoch="e2")
    assert run.report(number, 1).code == "vanished"
    assert run.restore("report", number, 2).code == "ok"
    assert run.snapshot.state == "running"


@pytest.mark.parametrize("wish", ["cancel", "pause"])
def test_a_wish_fulfilled_after_a_loss_stands(run, wish):
    number = run.running()
    run.lose()
    run.create(epoch="e2")
    run.say(wish, lost=LOST)
    state = run.snapshot.state
    assert run.restore("report", number, 2).code == "superseded"
    assert run.snapshot.state == state


def test_a_run_made_again_keeps_the_wish(run):
    number = run.running()
    run.lose()
    answer = run.restore("report", number, 1, asked="cancel")
    assert answer.asked == "cancel"


# -- ends -------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "waiting", "paused", "cancelled"])
def test_every_end_but_success_is_cancelled_once_that_was_asked(run, state):
    number = run.running()
    run.cancel()
    run.end(number, 1, state, reason="error", error='{"message":"no"}')
    assert run.snapshot.state == "cancelled"
    assert (run.snapshot.reason, run.snapshot.error) == ("asked", "null")


def test_a_success_stays_one_though_a_cancel_was_asked(run):
    number = run.running()
    run.cancel()
    run.end(number, 1, "succeeded")
    assert run.snapshot.shown == "succeeded"


@pytest.mark.parametrize("buried", [True, False])
def test_a_success_is_for_ever(run, buried):
    number = run.running()
    run.end(number, 1)
    before = run.snapshot
    run.cancel()
    run.pause()
    run.resume()
    run.withdraw()
    run.create()
    run.begin(hop=9)
    run.bury(lease=number)
    assert run.rev == before.rev
    assert run.snapshot.state == "succeeded"


def test_a_wait_says_when_it_is_over(run):
    number = run.running()
    answer = run.end(number, 1, "waiting", reason="retry", delay=5000, next=2)
    assert run.snapshot.due == answer.now + 5000
    assert run.snapshot.reason == "retry"


def test_a_wait_in_a_run_that_shall_pause_is_a_pause(run):
    number = run.running()
    run.pause()
    run.end(number, 1, "waiting", reason="retry", delay=5000, next=2)
    assert run.snapshot.state == "paused"
    assert (run.snapshot.asked, run.snapshot.due, run.snapshot.reason) == (None,) * 3


def test_what_was_published_before_a_pause_is_older_than_what_resumes(run):
    number = run.running()
    run.pause()
    run.end(number, 1, "waiting", reason="retry", delay=5000, next=2)
    assert run.resume().extra == [3]
    assert run.begin(hop=2, kind="retry").code == "old"


def test_a_redelivery_that_was_asked_for_counts_no_restart(run):
    run.create()
    for n in range(5):
        number = lease(run.begin())
        run.end(number, n + 1, "waiting", reason="redelivery", tame=True)
    assert run.snapshot.state == "waiting"


def test_a_finished_run_is_kept_two_days_another_a_week(run):
    number = run.running()
    assert 6 * DAY < run.store.client.pttl(run.key) <= 7 * DAY
    run.end(number, 1)
    assert DAY < run.store.client.pttl(run.key) <= 2 * DAY


# -- bury -------------------------------------------------------------------------


def test_a_dead_childs_run_is_buried(run):
    number = run.running()
    run.bury(lease=number, reason="worker_lost", error='{"message":"It died."}')
    assert (run.snapshot.state, run.snapshot.reason) == ("failed", "worker_lost")


def test_another_lease_is_not_buried(run):
    number = run.running()
    assert run.bury(lease=number - 1).code == "other"
    assert run.bury().code == "other"
    assert run.snapshot.state == "running"


def test_a_message_that_was_dropped_buries_its_run(run):
    run.create()
    run.bury(state="cancelled", reason="expired")
    assert (run.snapshot.state, run.snapshot.reason) == ("cancelled", "expired")


def test_what_a_child_left_waiting_is_buried(run):
    number = run.running()
    run.end(number, 1, "waiting", reason="redelivery")
    run.bury(reason="time_limit")
    assert run.snapshot.state == "failed"


def test_a_hop_that_has_a_successor_is_not_buried(run):
    number = run.running()
    run.end(number, 1, "waiting", reason="retry", next=2)
    assert run.bury(hop=1).code == "old"
    assert run.snapshot.state == "waiting"


def test_a_burial_of_a_run_that_shall_end_is_its_cancel(run):
    number = run.running()
    run.cancel()
    run.bury(lease=number, reason="worker_lost", error='{"message":"It died."}')
    assert (run.snapshot.state, run.snapshot.reason) == ("cancelled", "asked")
    assert run.snapshot.error == "null"


def test_a_success_that_the_child_could_not_tell_is_one(run):
    number = run.running()
    run.cancel()
    run.bury(lease=number, state="succeeded")
    assert run.snapshot.state == "succeeded"


@pytest.mark.parametrize("state", sorted(FINISHED | {"paused"}))
def test_nothing_over_or_paused_is_buried(run, state):
    number = run.running()
    run.end(number, 1, state)
    assert run.bury(reason="worker_lost").code == state
    assert run.snapshot.state == state


def test_an_unknown_run_is_not_buried(run):
    assert run.bury().code == "missing"


# -- asking -----------------------------------------------------------------------


def test_a_queued_run_is_cancelled_at_once(run):
    run.create()
    assert run.cancel().code == "done"
    assert (run.snapshot.state, run.snapshot.reason) == ("cancelled", "asked")
    assert run.begin().code == "cancelled"


def test_a_waiting_run_is_cancelled_at_once(run):
    run.end(run.running(), 1, "waiting", reason="retry", next=2)
    assert run.cancel().code == "done"


def test_a_paused_run_is_cancelled_at_once(run):
    run.create()
    run.pause()
    assert run.cancel().code == "done"


def test_a_lost_run_is_cancelled_at_once_and_its_worker_refused(run):
    number = run.running()
    run.silence()
    assert run.cancel().code == "done"
    assert run.report(number, 1, doc=run.doc(current=1)).code == "superseded"


def test_a_running_run_is_told_the_wish_with_its_next_report(run):
    number = run.running()
    assert run.cancel().code == "asked"
    assert run.snapshot.shown == "cancelling"
    assert run.report(number, 1).asked == "cancel"


def test_two_cancels_are_one(run):
    run.running()
    run.cancel()
    before = run.rev
    assert run.cancel().code == "asked"
    assert run.rev == before


def test_a_cancel_comes_before_a_pause(run):
    number = run.running()
    run.pause()
    run.cancel()
    run.pause()
    assert run.report(number, 1).asked == "cancel"


def test_a_queued_run_is_paused_at_once_and_its_message_dropped(run):
    run.create()
    assert run.pause().code == "done"
    assert run.begin().code == "paused"


def test_a_pause_clears_the_wish(run):
    number = run.running()
    run.pause()
    run.end(number, 1, "paused")
    assert (run.snapshot.state, run.snapshot.asked) == ("paused", None)


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_finished_run_is_asked_in_vain(run, state):
    number = run.running()
    run.end(number, 1, state)
    assert run.pause().code == run.resume().code == state
    assert run.snapshot.state == state


def test_an_unknown_run_is_asked_in_vain(run):
    answers = [run.cancel(), run.pause(), run.resume(), run.withdraw()]
    assert {answer.code for answer in answers} == {"missing"}


def test_resume_is_the_next_hop(run):
    number = run.running()
    run.end(number, 1, "paused")
    answer = run.resume()
    assert (answer.code, answer.state, answer.extra) == ("resumed", "queued", [2])
    assert run.begin(hop=1).code == "old"
    assert run.begin(hop=2, kind="resume").code == "begun"


def test_two_resumes_at_once_publish_once(run):
    run.create()
    run.pause()
    assert [run.resume().code, run.resume().code] == ["resumed", "queued"]


def test_a_resume_that_could_not_be_published_is_a_pause_again(run):
    run.create()
    run.pause()
    run.resume()
    assert run.say("repause", hop=2).code == "done"
    assert run.snapshot.state == "paused"


def test_a_paused_run_that_the_store_lost_is_made_again(run):
    answer = run.resume(
        make=True, epoch="e2", owner="o", doc=run.doc(current=5), hop=4, attempt=2
    )
    assert (answer.code, answer.extra) == ("resumed", [5])
    assert run.snapshot.attempt == 2
    assert run.snapshot.as_dict()["current"] == 5


def test_a_run_that_has_begun_is_not_withdrawn(run):
    run.running()
    assert run.withdraw().code == "running"
    assert run.snapshot.state == "running"


def test_another_hop_is_not_withdrawn(run):
    run.create()
    assert run.withdraw(hop=2).code == "queued"


def test_a_withdrawn_run_never_begins(run):
    run.create()
    run.withdraw()
    assert (run.snapshot.state, run.snapshot.reason) == ("cancelled", "withdrawn")
    assert run.begin().code == "cancelled"


# -- visible changes --------------------------------------------------------------


def test_a_beat_raises_no_rev(run):
    number = run.running()
    run.silence(5000)
    before = run.snapshot
    run.report(number, 1)
    assert run.snapshot.rev == before.rev
    assert run.snapshot.changed == before.changed
    assert run.snapshot.seen > before.seen


def test_every_visible_change_raises_rev(run):
    revs = [run.rev]
    number = run.running()
    revs.append(run.rev)
    run.report(number, 1, doc=run.doc(current=1))
    revs.append(run.rev)
    run.cancel()
    revs.append(run.rev)
    run.end(number, 2, "cancelled")
    revs.append(run.rev)
    assert revs == sorted(set(revs))


def test_an_unknown_verb_is_an_error(run):
    with pytest.raises(ResponseError, match="unknown verb dance"):
        run.say("dance")


def test_runs_do_not_know_of_each_other(store):
    one, other = Hand(store), Hand(store)
    one.running()
    assert other.stored is None
