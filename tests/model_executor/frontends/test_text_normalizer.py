"""What written text is spoken as, in English, Chinese and both; known wrong readings as xfails."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.model_executor.frontends.text_normalizer import CONTROL_TAG, TextNormalizer

ENGLISH = {
    # money
    "It costs $3.50.": "It costs three dollars and fifty cents.",
    "$0.99 or $1.01": "ninety nine cents or one dollar and one cent",
    "$1 or £5 or €10": "one dollar or five pounds or ten euros",
    "$1.5 million, $5M, $3k": "one point five million dollars, five million dollars, "
    "three thousand dollars",
    "-$4 and 50¢": "minus four dollars and fifty cents",
    "$5-$10 or $5-10": "five to ten dollars or five to ten dollars",
    "5 USD, USD 20, 3€": "five dollars, twenty dollars, three euros",
    "$1,234,567": "one million two hundred thirty four thousand five hundred sixty seven dollars",
    # dates and times
    "on May 3, 2024": "on May third, twenty twenty four",
    "on 3 May 2024": "on the third of May, twenty twenty four",
    "the 3rd of May": "the third of May",
    "2024-03-04": "March fourth, twenty twenty four",
    "12/25/2024 or 25/12/2024": "December twenty fifth, twenty twenty four or "
    "December twenty fifth, twenty twenty four",
    "3/4/24": "March fourth, twenty twenty four",
    "Feb. 3rd": "February third",
    "May 2024": "May twenty twenty four",
    "at 15:30": "at fifteen thirty",
    "at 9am or 9:05 p.m. sharp": "at nine A M or nine oh five P M sharp",
    "at 12:00": "at twelve o'clock",
    "We left at 5 p.m.": "We left at five P M.",
    "10:00-11:30 a.m. PST": "ten to eleven thirty A M P S T",
    "open 7 a.m.–9 p.m.": "open seven A M to nine P M.",
    "The 5 o'clock shadow of '99": "The five o'clock shadow of ninety nine",
    "died 31.12.2020": "died December thirty first, twenty twenty",
    # plain numbers
    "I have 1,234 and 3.14": "I have one thousand two hundred thirty four and three point one four",
    "007": "zero zero seven",
    "1st, 22nd, 103rd": "first, twenty second, one hundred third",
    "3/4 or 2 1/2": "three quarters or two and a half",
    "2½ cups": "two and a half cups",
    "24/7": "twenty four seven",
    "50% or 2.5 %": "fifty percent or two point five percent",
    "in 1905": "in nineteen oh five",
    "in 2005 and 2024": "in two thousand five and twenty twenty four",
    "the 1990s and '80s": "the nineteen nineties and eighties",
    "1990-1995": "nineteen ninety to nineteen ninety five",
    "1960-61": "nineteen sixty to sixty one",
    "3,000+ users, 50/50, 10^6": "three thousand plus users, fifty fifty, ten to the power of six",
    "10-12 people": "ten to twelve people",
    "pp. 3-5": "pages three to five",
    "-5 or +5": "minus five or plus five",
    "3:1": "three to one",
    "2+2=4": "two plus two equals four",
    "No. 5": "number five",
    "There are no 5 apples": "There are no five apples",
    "12345678901234567890": "one two three four five six seven eight nine zero "
    "one two three four five six seven eight nine zero",
    # units
    "5'6\" and 6'2": "five foot six and six foot two",
    "~$3,750/month": "about three thousand seven hundred fifty dollars per month",
    "2 tbsp. sugar": "two tablespoons sugar",
    "30°C and -5°F": "thirty degrees Celsius and minus five degrees Fahrenheit",
    "5km/h, 60 mph": "five kilometers per hour, sixty miles per hour",
    "1kg or 2 kg": "one kilogram or two kilograms",
    "6 ft": "six feet",
    "I have 5 in my bag": "I have five in my bag",
    "10–12kg": "ten to twelve kilograms",
    "5 μm and 3µs": "five micrometers and three microseconds",
    "α-particles and the angle θ": "alpha particles and the angle theta",
    # phones, addresses
    "555-123-4567": "five five five, one two three, four five six seven",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "ISBN 978-3-16": "ISBN nine seven eight, three, one six",
    "1-800-555-0199": "one, eight hundred, five five five, zero one nine nine",
    "john.smith42@example.com": "john dot smith forty two at example dot com",
    "see https://www.example.com/a-b.": "see w w w dot example dot com slash a dash b.",
    # abbreviations
    "Dr. Smith": "Doctor Smith",
    "12 Main St. with St. John": "twelve Main Street with Saint John",
    "at 10 Downing St": "at ten Downing Street",
    "Mr. & Mrs. Jones": "Mister and Missus Jones",
    "e.g. this, i.e. that, etc.": "for example this, that is that, et cetera.",
    "w/ milk, w/o sugar": "with milk, without sugar",
    "cats vs. dogs": "cats versus dogs",
    "He sat.": "He sat.",
    "the U.S. and the U.K.": "the U S and the U K.",
    # acronyms
    "FBI, NASA and USB": "F B I, NASA and U S B",
    "TVs and the CEO's": "T V's and the C E O's",
    "I AM SHOUTING VERY LOUD": "I AM SHOUTING VERY LOUD",
    "MP3, 4K, B2B, COVID-19": "M P three, four K, B two B, COVID nineteen",
    "C++ and C#": "C plus plus and C sharp",
    "v2.0.1": "v two point zero point one",
    # Roman numerals
    "Henry VIII": "Henry the eighth",
    "Chapter IV of World War II": "Chapter four of World War two",
    "Vitamin C, and I mix it": "Vitamin C, and I mix it",
    "the part I like": "the part I like",
    # marks
    "well-known — yes… (really)": "well known, yes, really,",
    "“Hello,” she said.": "Hello, she said.",
    "the dogs' bowls, don't": "the dogs bowls, don't",
    "café naïve": "cafe naive",
    "hello 😀👍🏽 world": "hello world",
    "ｆｕｌｌ ｗｉｄｔｈ １２３": "full width one hundred twenty three",
    "Stretto™ costs": "Stretto costs",
    "#1 and #fun": "number one and hashtag fun",
}
CHINESE = {
    "我有618元，你呢？": "我有六百一十八元，你呢？",
    "今天是2024年3月4日": "今天是二零二四年三月四日",
    "会议12:30开始": "会议十二点三十分开始",
    "气温-5℃": "气温负五摄氏度",
    "50%的人": "百分之五十的人",
    "1,234,567人": "一百二十三万四千五百六十七人",
    "第1/2章": "第二分之一章",
    "约1/4反对": "约四分之一反对",
    "1+1=2，3×4=12。": "一加一等于二，三乘四等于十二。",
    "25°C，-5℃~10℃": "二十五摄氏度，负五摄氏度到十摄氏度",
    "面积100m²，胜率>50%": "面积一百平方米，胜率大于百分之五十",
    "120km/h的速度": "每小时一百二十公里的速度",
    "上午8:00-10:30开放": "上午八点到十点三十分开放",
    "电话010-12345678": "电话零一零一二三四五六七八",
    "90后说：“不！”……": "九零后说：不！",
    "重5kg": "重五千克",
    "他说：“你好！”": "他说：你好！",
    "3-5个": "三到五个",
    "价格￥3.5": "价格三点五元",
}
MIXED = {
    "我喜欢Python和NLP": "我喜欢Python和N L P",
    "我买了3个apple": "我买了三个apple",
    "K歌、T恤和COVID-19疫情": "K歌、T恤和COVID nineteen疫情",
    "发邮件到me@example.com。": "发邮件到me at example dot com.",
    "请联系Dr. Wang": "请联系Doctor Wang",
    "I paid 5 dollars. 谢谢": "I paid five dollars. 谢谢",
}
KNOWN_WRONG = {
    "On 3/15 we met.": "On March fifteenth we met.",
    "Charles I of England": "Charles the first of England",
    "Read from 3 to 4 in. of tape": "Read from three to four inches of tape",
    "population 5 000": "population five thousand",
    "1e6": "one times ten to the sixth",
    "The $5 bill": "The five dollar bill",
    "1/2 tsp. salt": "half a teaspoon salt",
    "he is 6' tall": "he is six feet tall",
    'a 12" pizza': "a twelve inch pizza",
    "1.000.000 Euro": "one million Euro",
}


@pytest.fixture(scope="module")
def normalizer() -> TextNormalizer:
    return TextNormalizer()


@pytest.mark.parametrize("text", ENGLISH)
def test_english(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.normalize(text) == ENGLISH[text]


@pytest.mark.parametrize("text", CHINESE)
def test_chinese(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.normalize(text) == CHINESE[text]


@pytest.mark.parametrize("text", MIXED)
def test_mixed(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.normalize(text) == MIXED[text]


@pytest.mark.parametrize("text", KNOWN_WRONG)
@pytest.mark.xfail(reason="known wrong reading", strict=True)
def test_known_wrong(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.normalize(text) == KNOWN_WRONG[text]


@pytest.mark.parametrize("text", ["?!", "...", "😀🎉", "--- ***", "[laugh]", "\u200b\u0301", "🇩🇪"])
def test_nothing_speakable_is_empty(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.normalize(text) == ""


def test_control_tags_pass_untouched(normalizer: TextNormalizer) -> None:
    spoken = normalizer.normalize("I have 3 [uv_break] cats[laugh] and [oral_2] $5 [nonsense]")
    assert spoken == ("I have three [uv_break] cats[laugh] and [oral_2] five dollars, nonsense,")


def test_language_decides_between_words(normalizer: TextNormalizer) -> None:
    assert normalizer.normalize("42", "en") == "forty two"
    assert normalizer.normalize("42", "zh") == "四十二"


def test_a_sentence_without_words_follows_its_text(normalizer: TextNormalizer) -> None:
    assert normalizer.normalize("42.", otherwise="zh") == "四十二。"
    assert normalizer.normalize("42.", otherwise="en") == "forty two."
    assert normalizer.normalize("42 cats.", otherwise="zh") == "forty two cats."


def test_digits_of_other_scripts(normalizer: TextNormalizer) -> None:
    assert normalizer.normalize("٤٢ cats") == "forty two cats"


PIECES = st.sampled_from(
    [
        *ENGLISH,
        *CHINESE,
        *MIXED,
        *KNOWN_WRONG,
        "$",
        "%",
        "1",
        "90",
        ".",
        ",",
        ":",
        "/",
        "-",
        "°",
        "'",
    ]
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=4).map("".join)))
def test_any_text_becomes_words_and_marks(text: str) -> None:
    spoken = CONTROL_TAG.sub("", TextNormalizer().normalize(text))
    assert not re.search(r"[0-9]", spoken)
    assert not re.search(r"[\x00-\x1f$%&@#*_+=<>/\\|~^{}\[\]()\"]", spoken)
    assert "  " not in spoken
