"""The desk where findings come in and decisions go out. Open this file first.

``take``, for the findings of each window:
    judge → set aside what accuses the gone → advance the incidents → tell → ask for an action, unless a guard objects
``take_again``, for a window that late events have changed:
    the same on the reserved part of the budget; what was drifted stays so
``follow``, at every tick:
    look for the effect of actions → retire the incidents whose subject has gone
``deliver``, as often as you like:
    send the messages that are due
``refresh``, about every minute:
    tell the receivers that forget of all that is firing

What the first three decide is written in one transaction each, messages included; only ``deliver`` and ``refresh``
talk to the network. ``now`` is always given.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from alerts.action import Action
from alerts.actions.rollback import Rollback, has_effect, refusal, target_share
from alerts.delivery import send as send_over_http
from alerts.incidents import Change, Incident, advance, incident_key, over, retire
from alerts.ledger import Book, Claim, Ledger, UnknownActionError, WrongTokenError
from alerts.ledger.records import Message, rfc3339
from alerts.messages import alert_body, new_message_id, rollback_body
from alerts.notifiers import Notifier
from alerts.policy import ModelRules, Policy, Verdict, judge_window
from alerts.post import Post, Send
from alerts.reports import read_report
from alerts.serving import Served, Traffic, has_gone, lost_subject, rows_of, served_lately, served_now
from detectors.finding import Finding, Window

__all__ = ["Desk", "ModelRules", "Traffic"]


class Desk:
    """Decides on findings, and sees decisions through. Safe to use from several threads at once.

    callback_base
        Address of this service, for reports on actions.
    """

    def __init__(
        self,
        ledger: Ledger,
        policies: Sequence[Policy],
        notifiers: Mapping[str, Notifier],
        actions: Mapping[str, Rollback],
        traffic: Traffic,
        callback_base: str = "",
        send: Send = send_over_http,
        not_received: Callable[[], object] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._policies = {p.name: p for p in policies}
        self._actions = actions
        self._traffic = traffic
        self._callback_base = callback_base
        self._post = Post(ledger, notifiers, send, not_received)

    @property
    def policies(self) -> list[Policy]:
        """In the order of the configuration."""
        return list(self._policies.values())

    # Deciding

    def verdicts(self, rules: ModelRules, findings: Sequence[Finding]) -> list[dict[str, Any]]:
        """What the policies say of findings, without deciding anything."""
        by_window: dict[Window, list[Finding]] = defaultdict(list)
        for finding in findings:
            by_window[finding.window].append(finding)
        return [
            verdict.to_dict()
            for window, here in by_window.items()
            for _, verdict in judge_window(self.policies, rules, here, window.end - window.start)
        ]

    def take(
        self,
        now: datetime,
        rules: ModelRules,
        findings: Sequence[Finding],
        window_length: timedelta,
        claim: Claim | None = None,
    ) -> bool:
        """Decide on the findings of one window. The same window again changes nothing.

        With a claim on the window, it is marked as judged in the same transaction. False, and nothing is decided, when
        the claim was lost meanwhile: whoever has it now decides.
        """
        judged = judge_window(self.policies, rules, findings, window_length)
        serving, lately = self._served(rules, judged, now, now)
        with self._ledger.writing() as book:
            if claim is not None and not book.finish(claim, now):
                return False
            self._decide(book, now, judged, serving, lately)
        return True

    def take_again(
        self, now: datetime, rules: ModelRules, findings: Sequence[Finding], claim: Claim, rows: int | None
    ) -> bool:
        """Decide on the findings of a window that was judged again, with the part of the budget that is left for it.

        Times at which its events turned out to be the same are counted, too. Whom it accuses has gone if it had when
        the window was judged first: the rows of one whose rows come late are not there yet. Where it is labels that
        came late, whoever serves now counts.

        rows
            So many more came late; written down unless None.

        False, and nothing is decided, when the claim was lost meanwhile.
        """
        with self._ledger.reading() as book:
            before = book.judged(claim)
        late = now - before[0]
        judged = judge_window(self.policies, rules, findings, claim.end - claim.start, times_again=len(before))
        serving, lately = self._served(rules, judged, now, now if claim.kind.startswith("labels") else before[0])
        with self._ledger.writing() as book:
            if not book.finish(claim, now):
                return False
            if rows is not None:
                span = {"start": rfc3339(claim.start), "end": rfc3339(claim.end)}
                book.log(now, "judged_again", claim.environment, claim.model, **span, late_rows=rows)
            self._decide(book, now, judged, serving, lately, late)
        return True

    def _served(
        self, rules: ModelRules, judged: Sequence[tuple[Policy, Verdict]], now: datetime, then: datetime
    ) -> tuple[Served, Served]:
        """What serves now, and lately as of another time; not asked for where nothing is drifted."""
        if not any(verdict.state == "drifted" for _, verdict in judged):
            return {}, {}
        place = (self._traffic, rules.environment, rules.model)
        return served_now(*place, now), served_lately(*place, then)

    def _decide(
        self,
        book: Book,
        now: datetime,
        judged: Sequence[tuple[Policy, Verdict]],
        serving: Served,
        lately: Served,
        late: timedelta | None = None,
    ) -> None:
        for policy, verdict in judged:
            # Late labels keep telling of a version that has gone, and nothing is to be done about it any more.
            gone = has_gone(lately, policy.watch, verdict.version, verdict.server)
            if not (gone and verdict.state == "drifted"):
                self._advance(book, now, policy, verdict, serving, late)

    def _advance(
        self, book: Book, now: datetime, policy: Policy, verdict: Verdict, serving: Served, late: timedelta | None
    ) -> None:
        known = book.incident(incident_key(verdict))
        if known is None and verdict.state != "drifted":
            return
        incident, change = advance(known or Incident.of(policy, verdict), verdict, policy, now, late)
        if incident == known or (change == "cleared" and _awaits_effect(book, incident)):
            return
        if change == "cleared":
            incident = over(incident, book.unsettled(incident.environment, incident.model))
        book.keep(incident, new=known is None)
        if change is not None:
            self._tell(book, now, incident, change)
        if change == "found" and policy.action is not None:
            self._act(book, now, policy.action, incident, serving)

    def _tell(self, book: Book, now: datetime, incident: Incident, change: Change) -> None:
        _log(book, now, f"{incident.watch}_{change}", incident)
        if incident.severity != "page":
            return
        _log(book, now, "alert_firing" if change == "found" else "alert_resolved", incident)
        for message in self._messages(incident, change, now):
            book.enqueue(message, now)

    def _messages(self, incident: Incident, change: Change, at: datetime) -> list[Message]:
        policy = self._policies.get(incident.policy)
        if policy is None or incident.severity != "page":
            return []
        body = alert_body(incident, change, at)
        about = (incident.environment, incident.model, body)
        return [Message(new_message_id(), "alert", endpoint, *about) for endpoint in policy.notify]

    def _act(self, book: Book, now: datetime, name: str, incident: Incident, serving: Served) -> None:
        rollback = self._actions[name]
        environment, model, version = incident.environment, incident.model, incident.version
        firing = [i for i in book.unsettled(environment, model) if i.state == "firing"]
        objection = refusal(rollback, incident, serving, firing, book.actions(environment, model), now)
        about = {"policy": incident.policy, "version": version, "baseline_version": incident.baseline_version}
        if objection:
            book.log(now, "rollback_refused", environment, model, **about, reason=objection)
            return
        token = secrets.token_urlsafe(32)
        action = Action(
            id=f"act_{secrets.token_hex(12)}",
            name=name,
            policy=incident.policy,
            incident=incident.key,
            environment=environment,
            model=model,
            version=version,
            target=incident.baseline_version,
            accused_share=rows_of(serving, version) / rows_of(serving),
            state="requested",
            dry_run=rollback.dry_run,
            requested_at=now,
            expires_at=now + rollback.expires,
            effect_within=rollback.effect_within,
            effect_share=rollback.effect_share,
            settle=rollback.settle,
            token_hash=_hash(token),
        )
        book.add_action(action)
        dry = {"dry_run": True} if action.dry_run else {}
        book.log(now, "rollback_requested", environment, model, action_id=action.id, **about, **dry)
        summary = f"{incident.watch.replace('_', ' ')}: put version {action.target} back in place of {version}"
        body = rollback_body(action, summary, token, self._callback_base)
        command = Message(
            new_message_id(), "command", rollback.notifier, environment, model, body, action.id, action.expires_at
        )
        book.enqueue(command, now)

    # Seeing it through

    def follow(self, now: datetime, rules: ModelRules) -> None:
        """See which actions have had their effect, or missed it, and which incidents have lost their subject."""
        with self._ledger.reading() as book:
            awaited = [a for a in book.actions(rules.environment, rules.model) if a.in_flight]
            unsettled = book.unsettled(rules.environment, rules.model)
        if not awaited and not unsettled:
            return
        since_request = [a for a in awaited if now - a.settle >= a.requested_at]
        model = (rules.environment, rules.model)
        shown = {a.id: self._traffic.served(*model, now - a.settle, now) for a in since_request}
        lately = {at: served_lately(self._traffic, *model, at) for at in {_looked_at(i, now) for i in unsettled}}
        with self._ledger.writing() as book:
            for action in book.actions(*model):
                _look_for_effect(book, now, action, shown.get(action.id, {}))
            for incident in book.unsettled(*model):
                if _looked_at(incident, now) in lately:  # else it became one a moment ago
                    self._retire(book, now, incident, lately[_looked_at(incident, now)])

    def _retire(self, book: Book, now: datetime, incident: Incident, lately: Served) -> None:
        reason = self._lost_subject(incident, lately)
        if not reason or _awaits_effect(book, incident):
            return
        retired, change = retire(incident, reason, now)
        book.keep(retired, new=False)
        if change is not None:
            self._tell(book, now, retired, change)

    def _lost_subject(self, incident: Incident, lately: Served) -> str:
        policy = self._policies.get(incident.policy)
        if policy is None or not policy.watches(incident.model):
            return f"policy {incident.policy} no longer watches it"
        return lost_subject(lately, incident.watch, incident.version, incident.server)

    def callback(self, action_id: str, token: str, event: Mapping[str, Any], now: datetime) -> None:
        """Take a report on an action from whoever carries it out: ``{"state": "started"}`` and the like.

        ``state`` is started, succeeded, failed or refused; ``run_url``, ``deployed_version`` and ``message`` may be
        there. The same state of the same run again changes nothing. It is written down as ``rollback_started`` and so
        on, and proves nothing. (A ``rollback_refused`` without ``action_id`` is a guard's.)

        Raises UnknownActionError, WrongTokenError or BadCallbackError.
        """
        with self._ledger.writing() as book:
            action = book.action(action_id)
            if action is None:
                raise UnknownActionError(f"there is no action {action_id[:64]!r}")
            if not hmac.compare_digest(_hash(token), action.token_hash):
                raise WrongTokenError("the bearer token is not this action's; it came with the request")
            report = read_report(event)
            if book.add_report(action_id, report["state"], report.get("run_url", "")):
                about = {"action_id": action_id, "version": action.version, "baseline_version": action.target}
                told = {name: value for name, value in report.items() if name != "state"}
                book.log(now, f"rollback_{report['state']}", action.environment, action.model, **about, **told)

    def deliver(self, now: datetime) -> int:
        """Send the messages that are due. How many were received."""
        return self._post.deliver(now)

    def refresh(self, now: datetime) -> int:
        """Tell the receivers that forget, such as Alertmanager, of all that is firing. How many alerts were received.

        It needs no memory: what is told is what the ledger says just before. So a call that is missed or fails is made
        up for by the next. An incident that ends in the instant in which it is sent may seem to go on there until the
        end that was sent with it.
        """
        firing = self._ledger.open_incidents()
        told = ((i.key, message) for i in firing for message in self._messages(i, "found", i.since))
        return self._post.refresh((message for key, message in told if self._fires(key)), now)

    def _fires(self, key: str) -> bool:
        return any(incident.key == key for incident in self._ledger.open_incidents())


def _look_for_effect(book: Book, now: datetime, action: Action, served: Served) -> None:
    """``version`` is the accused, ``baseline_version`` the target, ``value`` the target's share of the rows."""
    if not action.in_flight or action.dry_run:
        return
    about = {"action_id": action.id, "version": action.version, "baseline_version": action.target}
    about_effect = {**about, "value": round(target_share(action, served), 4)}
    if has_effect(action, served):
        book.change_action(action, "effective")
        book.withdraw(action.id)
        book.log(now, "rollback_effective", action.environment, action.model, **about_effect)
    elif action.deadline is not None and now >= action.deadline:
        book.change_action(action, "ineffective")
        reason = f"version {action.target} did not get {action.effect_share:.0%} of the rows in time"
        book.log(now, "rollback_ineffective", action.environment, action.model, **about_effect, reason=reason)


def _looked_at(incident: Incident, now: datetime) -> datetime:
    """As of when whom it accuses serves or not: rows that come late are there by then. Labels are no rows."""
    return now if incident.watch == "accuracy_drop" else now - incident.patience


def _awaits_effect(book: Book, incident: Incident) -> bool:
    """Its action is in flight: whether that worked is told before the incident ends."""
    actions = book.actions(incident.environment, incident.model)
    return any(a.in_flight and not a.dry_run and a.incident == incident.key for a in actions)


def _log(book: Book, now: datetime, event: str, incident: Incident) -> None:
    about = {
        "policy": incident.policy,
        "incident": incident.key,
        "version": incident.version,
        "server": incident.server,
        "segment": incident.segment,
        "baseline_version": incident.baseline_version,
        "features": list(incident.features),
        "causes": [c.to_dict() for c in incident.causes],
        "value": incident.value,
        "reason": incident.reason,
        **({"late": True} if incident.late else {}),
    }
    book.log(now, event, incident.environment, incident.model, **about)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
