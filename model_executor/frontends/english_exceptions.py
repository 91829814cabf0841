"""Words whose reading in the shipped lexicon is wrong, odd or missing. Data, written by hand."""

from __future__ import annotations

__all__ = ["EXCEPTIONS", "SPELLED"]

_READINGS = """
app ae1 p
blockchain b l aa1 k ch ey0 n
cappuccino k ae0 p ax0 ch iy1 n ow0
cetera s eh1 t er0 ax0
chatbot ch ae1 t b aa0 t
colonel k er1 n ax0 l
croissant k r ax0 s aa1 n t
crypto k r ih1 p t ow0
ebay iy1 b ey0
ecommerce iy1 k aa1 m er0 s
emails iy1 m ey0 l z
emailed iy1 m ey0 l d
emoji ih0 m ow1 jh iy0
etc eh0 t s eh1 t er0 ax0
github g ih1 t hh ah0 b
haha hh aa1 hh aa1
hmm hh ah1 m
internet ih1 n t er0 n eh0 t
javascript jh aa1 v ax0 s k r ih0 p t
json jh ey1 s ax0 n
karate k er0 aa1 t iy0
latte l aa1 t ey0
lemme l eh1 m iy0
linux l ih1 n ax0 k s
login l ao1 g ih0 n
logins l ao1 g ih0 n z
missus m ih1 s ax0 z
miz m ih1 z
openai ow1 p ax0 n ey1 ay1
quinoa k iy1 n w aa0
shh sh ah1
smartphone s m aa1 r t f ow0 n
sushi s uw1 sh iy0
tilde t ih1 l d ax0
ubuntu uw0 b uh1 n t uw0
username y uw1 z er0 n ey0 m
vocoder v ow1 k ow0 d er0
website w eh1 b s ay0 t
ya y ax0
youtube y uw1 t uw0 b
"""

EXCEPTIONS = {
    word: tuple(phones) for word, *phones in map(str.split, _READINGS.strip().splitlines())
}
"""Phones of lower-case words; they go before the lexicon."""

SPELLED = frozenset(
    str.split("api cpu dvd faq gps gpu hd html http https id pdf php sql tv url usb")
)
"""Lower-case words that are read letter by letter."""
