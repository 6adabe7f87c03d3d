"""Unrelated prompts that a run must leave unchanged, and that measure whether it did.

A share of each batch repeats `PROMPTS` against the base without context (LLM-as-a-Coach, arXiv
2607.18110, replays a quarter); `HELD_OUT` measures retention and is never trained on.
"""

PROMPTS = (
    "What is the capital of Portugal?",
    "Write a short poem about the sea in winter.",
    "Explain why the sky looks blue.",
    "Give me three tips for sleeping better.",
    "What is 17 plus 26?",
    "How do I boil an egg?",
    "Translate 'good morning' into Spanish.",
    "Name five animals that live in the desert.",
    "What does photosynthesis do?",
    "Write one sentence about autumn.",
    "Who wrote Romeo and Juliet?",
    "List the planets of the solar system.",
    "How can I learn to play the guitar?",
    "What is a prime number?",
    "Suggest a name for a small brown dog.",
    "Why do cats purr?",
    "Describe a rainbow to someone who has never seen one.",
    "What is the difference between a lake and a river?",
    "Write a Python function that adds two numbers.",
    "How many days are in a leap year?",
    "Tell me a joke about a baker.",
    "What should I pack for a weekend in the mountains?",
    "Rewrite politely: give me the report now.",
    "What causes thunder?",
    "Which is larger, a whale or an elephant?",
    "Write the opening line of a detective story.",
    "How do vaccines work?",
    "What are the primary colours?",
    "Give an example of a metaphor.",
    "How far is the Moon from the Earth?",
    "Summarise the story of Cinderella in two sentences.",
    "What is the past tense of 'to swim'?",
)

HELD_OUT = (
    "What is the largest ocean on Earth?",
    "Explain gravity to a child.",
    "Write a haiku about a mountain.",
    "How do I make a cup of tea?",
    "What is 9 times 8?",
    "Name three European countries.",
    "Why do leaves change colour?",
    "Give me a tip for remembering names.",
)
