"""Which requests are auxiliary."""

import pytest

from agent.learning.auxiliary import is_auxiliary
from tests.support.cpu_time import max_cpu_s

TASKS = [
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.",
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history.",
    "### Task:\nSuggest 3-5 relevant follow-up questions that the user may ask next in this chat.",
    "Please generate a four to five word title summarizing our conversation without quotes.",
    "Summarize the discussion briefly in 200 words or less to use as a prompt for future context.",
    "Progressively summarize the lines of conversation provided, adding onto the summary.",
    "Given the following conversation, rephrase the follow up question to be a standalone question",
    "From the conversation below, make one standalone question.",
    "Your task is to create a detailed summary of the conversation so far.",
    "Provide a concise, 5-word-or-less title for the conversation, using its same language.",
    "Analyze if this message indicates a new conversation topic. If so, extract a 2-3 word title.",
    "Analyze the chat history to determine the necessity of generating search queries.",
    "Given a chat history and the latest question, formulate a standalone question.",
    "You are an autocompletion system. Continue the text in `<text>`.",
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
    "You are performing a CONTEXT CHECKPOINT COMPACTION. Create a handoff summary.",
    "*Briefly* summarize this partial conversation about programming.",
    "You are a chat thread titling assistant.",
    "使用四到五个字直接返回这句话的简要主题",
    "请总结上述对话为10个字以内的标题",
    "Summarize the conversation between the user and the assistant.",
    "Distill the above chat messages into a single summary message. Include many details.",
    "Based on the chat history, give this conversation a name.\nKeep it short.",
    "You are a summarization AI. Summarize the user's request into a single short sentence.",
    "The context is rapidly running out. Now, your urgent task is to create a comprehensive "
    "detailed summary of the conversation so far.",
    "Generate a concise title that captures the main topic or goal of this coding session.",
    "[SUGGESTION MODE: Suggest what the user might naturally type next.]",
    "You are an expert in crafting pithy titles for chatbot conversations.",
    "Please write a brief title for the following request:\n\nfix it",
    "You need to summarize the user's conversation into a title within 10 words.",
    "Please reply with a title for the chat that is 3-4 words in length.",
    "Based on the conversation so far, provide a concise description of this session in 4 words.",
    "Generate a short title for the above messages.",
    "- you will generate a short title based on the first message a conversation begins with",
]
QUESTIONS = [
    "When do you open?",
    "What is the title of the book?",
    "Write a poem about cats.",
    "Summarize this article: the cat sat on the mat.",
    "Generate a product title for a red lamp.",
    "Can you suggest a good restaurant?",
    "Rephrase this sentence: I am here.",
    "Give me a summary of the report.",
    "How do I send messages to my customers?",
    "Please summarize the message below: Dear sir, my parcel is late.",
    "Summarize this email thread for me.",
    "Write a title for my chat app's landing page.",
    "Can you generate a headline for a message to my customers?",
    "Give me tags for this discussion paper.",
    "Rephrase my message to the landlord politely.",
    "I'd like to exchange this lamp. Can you give me the title of the form?",
    "Create a follow-up question for the exchange student survey.",
    "My refund: see above. Provide the title of the book, as in our conversation on Monday.",
    "Can you summarize the conversation between Romeo and Juliet in act 2?",
    "Can I get a summary of our chat emailed to me when it ends?",
    "Summarise this discussion with my landlord and tell me what to reply: You owe 20.",
    "Please write a headline for the thread I post on Twitter about our shop.",
    "Create a title for a blog post about conversations with customers.",
    "Is the description of this session available in Spanish?",
    "The goal of this coding session is to fix the login bug.",
    "I need a brief title for the following request to HR.",
    "Please create tags for the above messages so that they go to the billing desk.",
    "Summary of the conversation so far: Ann wants her money back.",
    "The parcel came. As in our conversation last week, please provide the right title.",
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_about_a_conversation_is_an_auxiliary_request(task: str) -> None:
    history = [user("When do you open?"), {"role": "assistant", "content": "At nine."}]

    assert is_auxiliary([user(task)])
    assert is_auxiliary([*history, user(task)])
    assert is_auxiliary([{"role": "system", "content": task}, user("When do you open?")])
    assert is_auxiliary([user(task + "\n<chat_history>\n" + "USER: Hi\n" * 10_000)])


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_a_turn(question: str) -> None:
    assert not is_auxiliary([user(question)])
    assert not is_auxiliary([{"role": "system", "content": "You are kind."}, user(question)])


def test_after_answers_a_system_prompt_for_a_standalone_question_is_auxiliary() -> None:
    task = "Given a chat history and the latest question, formulate a standalone question."
    turns = [user("Hi"), {"role": "assistant", "content": "Hello!"}, user("And on Sunday?")]

    assert is_auxiliary([{"role": "system", "content": task}, *turns])


def test_a_system_prompt_that_mentions_summaries_does_not_make_turns_auxiliary() -> None:
    system = {"role": "system", "content": "At the end, write a title for the conversation."}
    turns = [user("Hi"), {"role": "assistant", "content": "Hello!"}, user("When do you open?")]

    assert not is_auxiliary([system, *turns])
    long = {"role": "system", "content": system["content"] + " Be kind." * 80}
    assert not is_auxiliary([long, turns[0]])
    behind = {"role": "system", "content": "You are Acme's agent. Summarize the chat history."}
    assert not is_auxiliary([behind, turns[0]])


@pytest.mark.parametrize(
    "before",
    [
        "You are Claude Code, Anthropic's official CLI for Claude.\n\n",
        "x-anthropic-billing-header: cc_version=2.1.80;\n\nYou are a Claude agent, built on "
        "Anthropic's Claude Agent SDK.\n\n",
    ],
)
def test_a_task_directly_after_an_agents_introduction_is_auxiliary(before: str) -> None:
    task = "Analyze if this message indicates a new conversation topic. Extract a 2-3 word title."
    turn = user("No, refunds take 45 days.")

    assert is_auxiliary([{"role": "system", "content": before + task}, turn])
    assert not is_auxiliary([{"role": "system", "content": f"{before}Be brief. {task}"}, turn])
    assert not is_auxiliary([{"role": "system", "content": before}, turn])
    alone = before.rstrip() + " Generate a short title for this conversation."
    assert not is_auxiliary([{"role": "system", "content": alone}, turn])


def test_a_task_in_a_final_system_message_is_auxiliary() -> None:
    task = {"role": "system", "content": "Summarize the discussion briefly in 200 words or less."}
    turns = [user("Hi"), {"role": "assistant", "content": "Hello!"}]

    assert is_auxiliary([*turns, task])
    assert is_auxiliary([*turns, user(TASKS[0]), {"role": "system", "content": "Be brief."}])
    assert not is_auxiliary([*turns, {"role": "assistant", "content": "So far"}, user("And you?")])


def test_a_system_message_after_the_users_turn_does_not_make_it_auxiliary() -> None:
    turns = [user("Hi"), {"role": "assistant", "content": "Hello!"}, user("No, it is 45 days.")]
    for said in (
        "Answer the question above, then suggest two follow-up questions for this conversation.",
        "Given the conversation above, answer the user and suggest tags for the ticket.",
        TASKS[0],
    ):
        assert not is_auxiliary([*turns, {"role": "system", "content": said}])


def test_a_correction_is_a_turn_even_if_it_mentions_a_title() -> None:
    turns = [user("Who owns it?"), {"role": "assistant", "content": "Mirel."}]
    correction = "No, that's wrong: provide the title as in our conversation, which is Director."

    assert not is_auxiliary([*turns, user(correction)])
    assert is_auxiliary([*turns, user(correction.removeprefix("No, that's wrong: "))])


@pytest.mark.parametrize(
    "text",
    [
        "generate a title " * 100_000,
        "conversation " * 100_000,
        "summarize " * 100_000,
        "generate title\n" * 40 + "conversation generate\n" * 40,
    ],
)
def test_long_texts_and_many_messages_are_classified_in_linear_time(text: str) -> None:
    with max_cpu_s(0.5):
        is_auxiliary([user(text)])
        is_auxiliary([{"role": "system", "content": text[:600]}] * 4_000)
