"""Numbers and times as people read them. What is missing or not finite is shown as a dash."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOTHING = "—"
MINUS = "\N{MINUS SIGN}"
THIN = "\u202f"
PERCENT = f"{THIN}%"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LARGEST = 1e100
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def number(value: Any) -> float | None:
    """A number that can be shown and drawn: finite and below 1e100. Anything else is None.

    >>> number(3), number(float("nan")), number(10**400), number("3"), number(True)
    (3.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        return None
    return float(value)


def count(value: Any) -> str:
    """A whole number with commas.

    >>> count(1234567), count(None)
    ('1,234,567', '—')
    """
    known = number(value)
    return NOTHING if known is None else f"{known:,.0f}"


def counted(value: Any, one: str, many: str = "") -> str:
    """A whole number with its noun.

    >>> counted(1, "row"), counted(1200, "row"), counted(2, "entry", "entries")
    ('1 row', '1,200 rows', '2 entries')
    """
    return f"{count(value)} {one if number(value) == 1 else many or one + 's'}"


def decimal(value: Any) -> str:
    """A number to three significant digits.

    >>> decimal(0.123456), decimal(4.0), decimal(12345.6), decimal(0.0000123)
    ('0.123', '4', '12,346', '1.23·10⁻⁵')
    """
    known = number(value)
    if known is None:
        return NOTHING
    size = abs(known)
    if size and (size < 1e-3 or size >= 1e9):
        return _scientific(known, 3)
    text = f"{known:,.0f}" if size >= 1000 else f"{known:.3g}"
    return text.replace("-", MINUS)


def p_value(value: Any) -> str:
    """A p-value to two significant digits.

    >>> p_value(0.5), p_value(0.0123), p_value(3.21e-12), p_value(0.0), p_value(1.0)
    ('0.50', '0.012', '3.2·10⁻¹²', '< 10⁻³⁰⁰', '1')
    """
    known = number(value)
    if known is None:
        return NOTHING
    if known < 1e-300:
        return "< 10⁻³⁰⁰"
    if known < 1e-3:
        return _scientific(known, 2)
    return "1" if known >= 0.995 else f"{known:#.2g}"


def share(value: Any, decimals: int | None = None) -> str:
    r"""A share as a percentage, finer near 0 and 100 % unless the decimals are given.

    >>> share(0.14), share(0.0034), share(0), share(0.99961), share(0.00001), share(0.8437, 1)
    ('14\u202f%', '0.34\u202f%', '0\u202f%', '99.96\u202f%', '< 0.01\u202f%', '84.4\u202f%')
    """
    known = number(value)
    if known is None:
        return NOTHING
    if decimals is not None:
        return f"{100 * known:.{decimals}f}{PERCENT}".replace("-", MINUS)
    if 0 < known < 0.00005:
        return f"< 0.01{PERCENT}"
    to_the_end = min(abs(known), abs(1 - known))
    decimals = 0 if to_the_end >= 0.1 else 1 if to_the_end >= 0.01 else 2
    return f"{round(100 * known, decimals):g}{PERCENT}".replace("-", MINUS)


def share_change(before: Any, after: Any) -> str:
    r"""Two shares, just fine enough to show how far they are apart.

    >>> share_change(0, 0.14), share_change(0.142, 0.146), share_change(None, 0.1)
    ('0\u202f% → 14\u202f%', '14.2\u202f% → 14.6\u202f%', '— → 10\u202f%')
    """
    first, second = number(before), number(after)
    if first is None or second is None:
        return f"{share(first)} → {share(second)}"
    difference = 100 * (second - first)
    most = 1 if max(first, second) >= 0.1 else 2
    decimals = 0
    while decimals < most:
        shown = round(100 * second, decimals) - round(100 * first, decimals)
        if abs(shown - difference) <= abs(difference) / 4:
            break
        decimals += 1
    return f"{share(first, decimals)} → {share(second, decimals)}"


def milliseconds(value: Any) -> str:
    """A duration given in milliseconds.

    >>> milliseconds(0.42), milliseconds(17.3), milliseconds(431.2), milliseconds(2310)
    ('0.42 ms', '17 ms', '431 ms', '2.3 s')
    """
    known = number(value)
    if known is None:
        return NOTHING
    if known >= 1000:
        return f"{known / 1000:,.0f} s" if known >= 10_000 else f"{known / 1000:.1f} s"
    return f"{known:.0f} ms" if known >= 10 else f"{known:.2g} ms"


def moment(value: Any) -> datetime | None:
    """The time in UTC that an ISO 8601 text means; None where it means none.

    >>> moment("2026-01-31T10:00:00+01:00").isoformat(), moment("soon")
    ('2026-01-31T09:00:00+00:00', None)
    """
    try:
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def day(time: datetime) -> str:
    """A date.

    >>> day(moment("2026-01-31T09:05Z"))
    '31 Jan 2026'
    """
    return f"{time.day} {time:%b %Y}"


def hour(time: datetime) -> str:
    """A time of day, with seconds where there are any.

    >>> hour(moment("2026-01-31T09:05Z")), hour(moment("2026-01-31T09:05:30.5Z"))
    ('09:05', '09:05:30')
    """
    return f"{time:%H:%M:%S}" if time.second else f"{time:%H:%M}"


def near(time: datetime, now: datetime | None) -> str:
    """A time of day, with its date unless that is today.

    >>> near(moment("2026-01-31T09:05Z"), moment("2026-01-31T12:00Z")), near(moment("2026-01-30T09:05Z"), None)
    ('09:05', '30 Jan 2026, 09:05')
    """
    return hour(time) if now is not None and time.date() == now.date() else f"{day(time)}, {hour(time)}"


def ago(time: datetime, now: datetime) -> str:
    """How long before now.

    >>> now = moment("2026-01-31T09:05Z")
    >>> ago(moment("2026-01-31T09:04:30Z"), now), ago(moment("2026-01-31T07:00Z"), now), ago(now, now)
    ('30 s ago', '2 h 5 min ago', 'now')
    """
    seconds = int((now - time).total_seconds())
    if seconds < 1:
        return "now"
    if HOUR <= seconds < DAY and seconds % HOUR >= MINUTE:
        return f"{seconds // HOUR} h {seconds % HOUR // MINUTE} min ago"
    size, unit = next((s, u) for s, u in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")) if seconds >= s)
    return f"{seconds // size} {unit} ago"


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", MINUS)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; of a longer one the beginning and the end.

    >>> shortened("income", 12), shortened("monthly_income_after_tax", 12)
    ('income', 'monthl…r_tax')
    """
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
