"""Invents the shop's people, cards and products: always the same ones, and none that could be real."""

import datetime
import random
from collections.abc import Iterator
from decimal import Decimal

_GIVEN = (
    "Ada Amara Anders Anna Aylin Beatriz Bruno Camille Carlos Chidi Clara Daniel Dario David Elena Elif Emma Erik "
    "Esther Fatima Felix Freya Gabriel Giulia Grace Hana Hannah Henrik Hugo Ines Isaac Ivy Jack Jamal Jana Jonas "
    "Julia Kai Kamil Karin Keiko Lars Laura Leila Leo Lina Lucas Lucia Maja Malik Marco Maria Marta Mateo Maya "
    "Mei Mia Milan Mina Naomi Nadia Nils Noah Nora Olga Oliver Omar Oscar Paula Pavel Petra Priya Rafael Ravi "
    "Rosa Ruth Samir Sara Sofia Stefan Tara Theo Tomas Una Vera Viktor William Yara Yuki Zoe"
)
_FAMILY = (
    "Adeyemi Andersen Bakker Barbieri Bauer Becker Bennett Bergman Bianchi Blanc Campbell Carter Castro Chen "
    "Clarke Costa Cruz Dahl Dubois Dupont Evans Fernandez Ferrari Fischer Fontaine Foster Garcia Girard Gomez "
    "Greco Hansen Hassan Hayashi Hughes Ito Jensen Johansson Kaya Keller Khan Kim Klein Kowalski Lambert Larsen "
    "Laurent Lopez Lund Martin Mendes Meyer Moreau Morgan Moretti Murphy Nakamura Navarro Nguyen Nielsen Novak "
    "Okafor Olsen Ortiz Osei Park Patel Pereira Petrov Popescu Ramos Reyes Ricci Roberts Romero Rossi Santos Sato "
    "Schmidt Schneider Shah Silva Simon Singh Sousa Suzuki Svensson Tanaka Taylor Torres Tran Turner Vargas Vogel "
    "Wagner Walker Weber Weiss Wilson Wright Yamamoto Yilmaz Zimmermann"
)
# Numbers that the regulators set aside for drama, and the share of customers in each country.
_COUNTRIES = {
    "US": (38, "+1 {a} 555 01{b:02}"),
    "GB": (22, "+44 7700 900{c:03}"),
    "DE": (16, "+49 30 23125 {c:03}"),
    "FR": (14, "+33 6 39 98 {b:02} {d:02}"),
    "SE": (10, "+46 70 174 06 {b:02}"),
}
_DOMAINS = ("example.com", "example.net", "example.org", "mail.example", "post.example")
# Prefixes of the card schemes' published test numbers.
_BRANDS = {"visa": ("411111", 16), "mastercard": ("555555", 16), "amex": ("378282", 15)}
_THINGS = {
    "kitchen": (
        "moka pot",
        "cast-iron pan",
        "paring knife",
        "salad spinner",
        "teapot",
        "bread tin",
        "spice rack",
        "apron",
    ),
    "garden": (
        "secateurs",
        "watering can",
        "seed tray",
        "hand fork",
        "bird feeder",
        "plant pot",
        "trellis",
        "rain gauge",
    ),
    "office": (
        "desk lamp",
        "notebook",
        "fountain pen",
        "paper tray",
        "wall planner",
        "monitor stand",
        "stapler",
        "corkboard",
    ),
    "travel": (
        "duffel bag",
        "packing cube",
        "neck pillow",
        "water bottle",
        "luggage strap",
        "rain jacket",
        "sun hat",
        "map case",
    ),
    "play": ("chess set", "kite", "jigsaw", "yo-yo", "juggling balls", "card game", "skipping rope", "marble run"),
}
_MAKES = ("Alder", "Birch", "Cedar", "Dune", "Ember")
_OPENED = datetime.datetime(2019, 3, 1, 8, 0, tzinfo=datetime.UTC)

Customer = tuple[int, str, str, str, str, datetime.date, int, str, datetime.datetime]
Card = tuple[int, int, str, str, datetime.date, str]
Product = tuple[int, str, str, str, Decimal]


def invent_customers(count: int, seed: int) -> list[Customer]:
    """Rows of `customers`, in the order of its columns."""
    draw = random.Random(seed)  # noqa: S311 - the same people each time is the point
    given_names, family_names = _GIVEN.split(), _FAMILY.split()
    ssns = draw.sample(range(100 * 99 * 9999), count)
    weights = [share for share, _ in _COUNTRIES.values()]
    rows: list[Customer] = []
    for number, code in enumerate(ssns, start=1):
        given, family = draw.choice(given_names), draw.choice(family_names)
        country = draw.choices(list(_COUNTRIES), weights)[0]
        phone = _COUNTRIES[country][1].format(
            a=draw.choice((206, 212, 312, 415, 617)),
            b=draw.randrange(100),
            c=draw.randrange(1000),
            d=draw.randrange(100),
        )
        area, rest = divmod(code, 99 * 9999)
        group, serial = divmod(rest, 9999)
        rows.append(
            (
                number,
                f"{given} {family}",
                f"{given}.{family}{number}@{draw.choice(_DOMAINS)}".lower(),
                phone,
                f"{900 + area}-{group + 1:02}-{serial + 1:04}",
                datetime.date(1944, 1, 1) + datetime.timedelta(days=draw.randrange(22_500)),
                int(draw.lognormvariate(10.8, 0.45)) // 100 * 100,
                country,
                _OPENED + datetime.timedelta(minutes=draw.randrange(60 * 24 * 1760)),
            )
        )
    return rows


def invent_cards(customers: list[Customer], seed: int) -> list[Card]:
    """Rows of `cards`: one for most customers, two for some; the numbers pass the Luhn check."""
    draw = random.Random(seed)  # noqa: S311
    rows: list[Card] = []
    for customer in customers:
        for _ in range(draw.choices((0, 1, 2), (5, 75, 20))[0]):
            brand = draw.choices(list(_BRANDS), (55, 35, 10))[0]
            prefix, length = _BRANDS[brand]
            number = len(rows) + 1
            middle = (
                f"{number * 7919 % 10 ** (length - 7):0{length - 7}}"  # coprime with the range: never twice the same
            )
            expires = datetime.date(2027 + draw.randrange(5), 1 + draw.randrange(12), 1)
            rows.append((number, customer[0], brand, _with_check_digit(prefix + middle), expires, customer[1].upper()))
    return rows


def invent_products() -> list[Product]:
    """Rows of `products`."""
    return list(_products())


def _products() -> Iterator[Product]:
    number = 0
    for category, things in _THINGS.items():
        for place, thing in enumerate(things, start=1):
            for make in _MAKES:
                number += 1
                price = Decimal(390 + (number * 2741) % 8900) / 100
                yield number, f"{category[:2].upper()}-{place:02}-{make[:1]}", f"{make} {thing}", category, price


def _with_check_digit(digits: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return f"{digits}{-total % 10}"
