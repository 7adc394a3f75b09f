"""The rule that masks what points at a person: mobile numbers, identity numbers, e-mail addresses.

Of mainland China's kinds. An identity number is one only if its date and its check digit (GB 11643)
are right, so that other long numbers stay.
"""

import re
from datetime import date

MOBILE = re.compile(
    r"(?<![0-9.])(?:(?:\+|00)?86[- ]?)?1[3-9][0-9](?:[0-9]{8}|[- ][0-9]{4}[- ][0-9]{4})(?![0-9.]*[0-9])"
)
IDENTITY = re.compile(r"(?<![0-9])[0-9]{17}[0-9Xx](?![0-9])")
EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,12}"
)
MANY_DIGITS = re.compile(r"[0-9](?:[0-9]{6}|[0-9]*[- ][0-9])")
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECKS = "10X98765432"


def privacy(text: str) -> str:
    """Put [手机号], [身份证号] and [邮箱] in their places.

    >>> privacy("电话13800138000或+86 138-0013-8000，邮箱zhang.san@mail.example.cn")
    '电话[手机号]或[手机号]，邮箱[邮箱]'
    >>> privacy("身份证11010519491231002X；编号110105194912310021，圆周率3.14159265358979")
    '身份证[身份证号]；编号110105194912310021，圆周率3.14159265358979'
    """
    if "@" in text:
        text = EMAIL.sub("[邮箱]", text)
    if not MANY_DIGITS.search(text):
        return text
    text = IDENTITY.sub(lambda match: "[身份证号]" if is_identity(match[0]) else match[0], text)
    return MOBILE.sub("[手机号]", text)


def is_identity(number: str) -> bool:
    """Whether the date and the check digit of an 18-digit identity number are right (GB 11643)."""
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    remainder = sum(int(digit) * weight for digit, weight in zip(number, WEIGHTS, strict=False)) % 11
    return CHECKS[remainder] == number[17].upper()
