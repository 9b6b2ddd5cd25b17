r"""Which answer is read in a solution, and what numbers it may be written as."""

from fractions import Fraction

import pytest

from arkjax.tasks.graders.final_answer import LONGEST, read_answer
from arkjax.tasks.graders.plain_numbers import clean, plain_number

pytestmark = pytest.mark.fast

NUMBERS = [
    ("1,234", "1234"),
    ("1 234", "1234"),
    ("1{,}234", "1234"),
    (r"1\,234", "1234"),
    (r"1\!,234", "1234"),
    ("1\u202f234\u00a0567", "1234567"),
    ("1,234,567.89", "1234567.89"),
    ("-3.5", "-3.5"),
    ("\u22123.5", "-3.5"),
    ("- 3.5", "-3.5"),
    ("+7", "7"),
    (".5", "0.5"),
    ("-.5", "-0.5"),
    ("5.", "5"),
    ("3.50", "3.5"),
    ("007", "7"),
    ("-0", "0"),
    ("3/4", "3/4"),
    ("6 / 8", "3/4"),
    ("-3/4", "-3/4"),
    ("8/4", "2"),
    (r"\frac{3}{4}", "3/4"),
    (r"\frac34", "3/4"),
    (r"\frac3{4}", "3/4"),
    (r"-\dfrac{3}{4}", "-3/4"),
    (r"\tfrac{-3}{4}", "-3/4"),
    (r"\frac{1,000}{3}", "1000/3"),
    ("1 1/2", "3/2"),
    ("-1 1/2", "-3/2"),
    ("1 and 1/2", "3/2"),
    (r"1\frac{1}{2}", "3/2"),
    ("1½", "3/2"),
    ("¾", "3/4"),
    ("1\u20442", "1/2"),
    ("1.2e5", "120000"),
    ("1.2E-2", "0.012"),
    (r"1.2 \times 10^{5}", "120000"),
    ("1.2 × 10^-2", "0.012"),
    ("3*10**2", "300"),
    ("50%", "50%"),
    (r"50\%", "50%"),
    ("50 percent", "50"),
    ("$18", "18"),
    (r"\$18", "18"),
    ("-$18", "-18"),
    ("$-18", "-18"),
    ("$1,200.00", "1200"),
    ("€5", "5"),
    ("Rs. 7,925", "7925"),
    ("18 dollars", "18"),
    ("18kg", "18"),
    ("18 m", "18"),
    ("18 cm^2", "18"),
    ("18 square feet", "18"),
    ("5 miles/hour", "5"),
    (r"18\text{ cm}^2", "18"),
    (r"18\ \mathrm{m}", "18"),
    (r"90^\circ", "90"),
    ("2 million", "2000000"),
    ("2 Million", "2000000"),
    ("2.5-million", "2500000"),
    ("5 hundred", "500"),
    ("$1.5k", "1500"),
    ("$3M", "3000000"),
    ("-$2bn", "-2000000000"),
    ("1.5K", "1500"),
    ("$2k per month", "2000"),
    ("€18,00", "18"),
    ("€ 18,50", "18.5"),
    ("-€18,50", "-18.5"),
    ("18,50 €", "18.5"),
    ("€1,850", "1850"),
    ("£1,234.50", "1234.5"),
    ("x = 5", "5"),
    (r"\text{42}", "42"),
    ("**18**", "18"),
    ("$18$", "18"),
    ("18.", "18"),
    ("<b>18</b>", "18"),
    ("1\u200b8", "18"),
]
NO_NUMBERS = [
    "", "x", "2x", "2\\sqrt{2}", "1,2", "1,23", "18,00", "12,34,567", "18.00.00",
    "$18,00", "€18,00,00", "5k", "2k+1", "18b", "$5k$", "$2m = n$",
    "(1,2)", "3:4", "1.2.3", "3/4/5", "1/0", "5!",
    "10^5", "12 or 13", "18m", "3+4i", "NaN", "inf", "1e999999999", "٣", "१८", "１８", "0x1f",
    "1_000", "--5", "9" * 2000,
]  # fmt: skip


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_numbers_are_read_whole(text, number):
    assert str(plain_number(clean(text))) == number


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_plain_number(text):
    assert plain_number(clean(text)) is None


@pytest.mark.parametrize(("_", "number"), NUMBERS)
def test_a_number_is_written_back_as_itself(_, number):
    again = plain_number(number)
    assert str(again) == number
    assert again.value == Fraction(number.rstrip("%"))


READINGS = [
    # "#### N" of GSM8K
    ("#### 18", "18"),
    ("####18", "18"),
    ("#### $1,234.50 ", "1234.5"),
    ("#### -7", "-7"),
    ("#### 18 dollars", "18"),
    ("#### 18 because 3*6", "18"),
    ("#### 10,00", "1000"),
    ("#### 5 * 3 = 15", "15"),
    (r"#### \frac{3}{4}", "3/4"),
    ("#### x+1", "x+1"),
    ("She makes 9 * 2 = $<<9*2=18>>18.\n#### 18", "18"),
    ("#### 18\n\nQuestion: Tom has 5.\nHe has <<5+2=7>>7.\n#### 7", "18"),
    ("#### 18\n#### 20", "18"),
    ("#### 18 Question: Tom has 5. #### 7", "18"),
    ("They say #### 17 here.\n#### 18", "18"),
    ("\\boxed{3}\n#### 18", "18"),
    ("#### 1. Count the eggs\n16 - 3\n#### 2. Sell them\nThe answer is 18.", "18"),
    ("#### Step 1: add 3\n#### Step 2: add 4\n\\boxed{7}", "7"),
    ("#### Conclusion\nShe makes 18 dollars.", "18"),
    # boxes
    (r"so \boxed{18}", "18"),
    (r"so \boxed{1} and then \fbox{18}", "18"),
    (r"\boxed{18} is the answer. The answer is 3", "18"),
    (r"Therefore, the final answer is \(\boxed{1{,}234}\).", "1234"),
    (r"$\boxed{\frac{3}{4}}$", "3/4"),
    (r"\boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt{3}}{2}"),
    (r"\boxed{x=5}", "5"),
    (r"\boxed{9\cdot 2=18}", "18"),
    (r"\boxed{y = 2x+1}", "y = 2x+1"),
    (r"\boxed{18\text{ dollars}}", "18"),
    (r"\boxed{\text{Tuesday}}", r"\text{Tuesday}"),
    (r"\boxed{3} and \boxed{4", "3"),
    # statements
    ("The answer is 18.", "18"),
    ("The answer is $18.", "18"),
    ("The answer is: $18$.", "18"),
    ("The answer is **18**.", "18"),
    ("The answer is <b>18</b>", "18"),
    ("The answer is -18", "-18"),
    ("the answer is $-\\frac{1}{2}$ cups", "-1/2"),
    ("The answer is 1 1/2 cups", "3/2"),
    ("The answer is that she makes 18 dollars from 9 eggs.", "18"),
    ("The answer is 18 (3*6 = 18)", "18"),
    ("The answer is 18, since 20 - 2 = 18", "18"),
    ("The answer is 3 * 6 = 18 dollars.", "18"),
    ("The answer is $2 * 9 = $18 per day", "18"),
    ("The answer is 9 eggs * $2/egg = $18.", "18"),
    ("The answer is (3+4)*2 = 14", "14"),
    ("The answer is x + 1.", "x + 1"),
    ("The answer is $x^2+1$.", "x^2+1"),
    ("The answer is (1,2).", "(1,2)"),
    (r"The answer is 3\sqrt{2}", r"3\sqrt{2}"),
    ("The correct answer is (B) 18", "18"),
    ("Answer: 18", "18"),
    ("**Answer:** 18", "18"),
    ("**Final Answer**\n\n18 apples", "18"),
    ("### Answer\n18", "18"),
    ("Final answer 18", "18"),
    ("Answer:\n- 18 apples", "18"),
    ("Answer: \\[ \\frac{1}{2} \\]", "1/2"),
    ("The answer is\n$$\n18\n$$", "18"),
    ("<answer>18</answer>", "18"),
    ("A: 18", "18"),
    ("A: She has 18 dollars left.", "18"),
    ("9*2=$<<9*2=18>>18\nA: 18", "18"),
    ("A: There are 15 trees. Then there were 21. So 21-15=6.", "6"),
    ("Answer: There are 3 cars.\nEach has 4 wheels.\nSo 12 wheels.", "12"),
    ("Answer: Yes, she can. She has 18 left.", "18"),
    ("My answer: 17. Wait, no. The answer is 18", "18"),
    ("Agent 1's answer is wrong. The total is 18.", "18"),
    ("The answer is 18.\n\nQ: Tom has 5?\nA: The answer is 7", "18"),
    ("The answer is 18.<|im_end|>The answer is 7", "18"),
    ("Problem: Tom has 3.\nAnswer: 18\nProblem: Ann has 5. Answer: 7", "18"),
    ("Final Answer: The final answer is $18$. I hope it is correct.", "18"),
    # what the text ends on
    ("so she has 1,234", "1234"),
    ("it is 1,234 dollars, or 5% more", "5%"),
    ("so −3.5.", "-3.5"),
    ("She pays $18 and then $20.", "20"),
    ("She makes $18/day.", "18"),
    ("it costs 5-3", "3"),
    ("x-3", "3"),
    ("it costs 5 - 3", "3"),
    ("it costs 5 - $3", "3"),
    ("from 5 -3", "-3"),
    ("so the change: -3", "-3"),
    ("She has 5:\n- 3", "-3"),
    ("so $1.5k", "1500"),
    ("That is $1.5k per month, or $18k.", "18000"),
    ("#### $1.5k", "1500"),
    ("The answer is €18,00.", "18"),
    ("She has 5 and pays €18,50 for it", "18.5"),
    ("on the 3rd day he has 5, as on the 4th", "5"),
    (r"x = \frac{3}{4}", "3/4"),
    (r"Thus $x=\sqrt{2}$.", r"\sqrt{2}"),
    (r"Thus $x=2$.", "2"),
    ("She has <<1+1=2>>2.\nSo 18 are left.", "18"),
    ("She has <<1+1=2>>2.\n18", "18"),
    ("\x1b[31m#### 18\x1b[0m", "18"),
    # no answer
    ("#### ", None),
    ("The answer is 5.\n####", None),
    ("so 5 and 6. The answer is", None),
    ("so 5 and 6.\nThe answer is unknown.", None),
    ("Answer: none of 5\n\nFinal answer:", None),
    (r"5 \boxed{18", None),
    (r"5 \boxed{}", None),
    ("She makes 9*2=$<<9*2=18>>18", None),
    ("She makes 9*2=$<<9*2=", None),
    ("She has <<1+1=2>>2.\nOf 18 she gives away", None),
    ("18.00.00", None),
    ("She has 5 and pays 12,34,567", None),
    ("The answer is 18.00.00 dollars", None),
    ("no digits", None),
    ("٣", None),
    ("#### 0x7f is", None),
    ("", None),
    (" \n", None),
]


@pytest.mark.parametrize(("text", "answer"), READINGS)
def test_which_answer_is_read(text, answer):
    reading = read_answer(text)
    assert reading.answer == answer
    assert reading.where


def test_what_is_too_long_is_no_answer():
    for text in ("9" * (LONGEST + 1), r"\boxed{" + "x" * (LONGEST + 1) + "}"):
        assert read_answer(text).answer is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"\boxed{}", r"\boxed{} is empty"),
        (r"\boxed{  }", r"\boxed{} is empty"),
        (r"\boxed{18", r"\boxed{} is not closed"),
        (r"\boxed{" + "(" * 5000 + "18" + ")" * 5000 + "}", "nested too deep: 5000 levels"),
        (r"\boxed{" + "(" * 700 + "18" + ")" * 700 + "}", "nested too deep: 700 levels"),
        (r"\boxed{" + "x" * 9000 + "}", r"\boxed{} holds over 1000 characters"),
        (r"\boxed{" + "x" * 1001 + "}", r"\boxed{} holds over 1000 characters"),
        ("so 18.00.00", "the last number, '18.00.00', is not well formed"),
    ],
)
def test_why_there_is_no_answer(text, reason):
    reading = read_answer(text)
    assert reading.answer is None
    assert reason in reading.where
