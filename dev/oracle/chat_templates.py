#!/usr/bin/env python3
"""Chat templates as transformers renders them: templates in the manner of the families', with white space, loops,
filters and slices of every kind, and random ones; for tests/io/jinja/test_chat_templates.cpp.

    chat_templates.py [--random 60] [--seed 1] [--out tests/golden/chat/templates.jsonl]

A line for each: template, context, and the text with the spans of {% generation %}, or "error" where Jinja raises.
LLMC_CHAT_TEMPLATES=FILE gives the test another file, such as one of thousands: --random 5000 --out FILE.
Needs jinja2 and transformers (models.txt).
"""
import argparse
import json
import os
import random
import sys

from transformers.utils import chat_template_utils

HERE = os.path.dirname(os.path.abspath(__file__))

# In the manner of Llama 3.
LLAMA3 = """{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{{- bos_token }}
{#- The system message is taken out so that it can be put in place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+
            message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at a time") }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# In the manner of Qwen 2.5, with what is scored marked.
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are helpful.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" and not message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- generation %}
        {{- '\\n' + message.content + '<|im_end|>' + '\\n' }}
        {%- endgeneration %}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# In the manner of Qwen 3: a namespace, a loop backwards, methods of texts.
THINKING = """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(
        message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
"""

# In the manner of Mistral.
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {%- generation %}{{- " " + message["content"]|trim + eos_token}}{%- endgeneration %}
    {%- else %}
        {{- raise_exception("only user and assistant roles are known") }}
    {%- endif %}
{%- endfor %}
{{- " of " ~ user_messages|length }}
"""

# In the manner of Zephyr, which needs trim_blocks.
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

# In the manner of Gemma.
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}\
{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

# In the manner of Phi-3 and of SmolLM2.
PHI3 = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""
SMOL = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a small model.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# One construct or another, each a template.
PIECES = [
    '  {% if true %}\n  a\n  {% endif %}\n  b\n\n',
    'a {%- if true -%} b {%- endif -%} c',
    '{%+ if true +%}\n x{% endif %}\n',
    '{# note #}\nx {#- note -#} y {# more\nlines #}\n  z',
    " {{- 'a' -}} \n b",
    '{% raw %}{{ x }}\n{% if %}{% endraw %}\n c',
    '  {%- raw -%}  {{ y }} {%- endraw -%}  d',
    'line\r\nother\rthird\n',
    'x\n\n',
    'x\n{% if true %}y{% endif %}\n',
    '{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}'
    '{{ i }}{% endfor %}',
    "{% for i in range(2, 10, 3) %}{{ loop.index }}/{{ loop.length }}:{{ i }}{{ ', ' if not loop.last }}"
    '{% else %}no{% endfor %}',
    '{% for i in [] %}x{% else %}empty{% endfor %}',
    "{% for m in messages if m.role != 'system' %}{{ loop.index0 }}{{ m.role[0] }}{% endfor %}",
    '{% for k, v in messages[0] | items %}{{ k }}={{ v }};{% endfor %}',
    '{% for k in messages[0] %}{{ k }} {% endfor %}',
    '{% for k, v in messages[0].items() %}{{ k ~ v | length }}{% endfor %}',
    "{{ messages[0].get('x', 'none') }}{{ messages[0].get('y') }}",
    '{% set x = 1 %}{% for i in range(3) %}{{ x }}{% set x = i + 10 %}{{ x }} {% endfor %}{{ x }}',
    '{% set ns = namespace(n=0, found=false) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}'
    '{{ ns.n }}{{ ns.found }}',
    '{% set x %}a {{ messages | length }}\n b{% endset %}[{{ x }}]{% set y | upper | trim %}'
    '  low {% endset %}{{ y }}',
    "{% set a, b = 1, 'two' %}{{ b }}{{ a }}",
    '{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1.5 + 1 }} {{ 1e3 }}',
    "{{ 'a' * 3 }}{{ [1, 2] + [3] }}{{ (1, 2)[0] }}{{ [1, [2, 'x']] }}{{ {'a': 1, 'b': none} }}",
    "{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-1] }}{{ 'abcdef'[-2:] }}{{ 'abcdef'[:-2] }}{{ 'abc'[5:] }}",
    "{{ 'aéü👋z'[1:4] }}{{ 'aéü👋z' | length }}{{ 'aéü👋z'[3] }}",
    '{{ [1,2,3,4,5][::2] }}{{ [1,2,3,4,5][3:0:-1] }}{{ [1,2,3][-1] }}{{ [1,2,3][10:] }}',
    "{{ '  x y  '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ '  a'.lstrip() }}|{{ 'a  '.rstrip() }}"
    "|{{ ' a' | trim }}|{{ 'xax' | trim('x') }}",
    "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a-b-c'.split('-', 1) }}{{ 'a-b-c'.rsplit('-', 1) }}",
    '{{ \'hello wOrld-foo (bar\'|title }}{{ "it\'s a".title() }}{{ \'hELLO you\' | capitalize }}'
    "{{ 'straße'|upper }}{{ 'ÀÉ' | lower }}",
    "{{ 'banana' | replace('a', 'o') }}{{ 'banana' | replace('a', 'o', 2) }}{{ 'banana'.replace('an', '') }}",
    "{{ x | default('d') }}{{ '' | default('e') }}{{ '' | default('f', true) }}{{ none | d('g') }}"
    "{{ x is defined }}{{ (x.y is defined) if (x is defined) else 'no' }}",
    '{{ messages[0] | tojson }}{{ [1, 1.5, true, none, \'a\\n"é<>&\\\'\'] | tojson }}'
    "{{ {'a': [], 'b': {}, 'c': [1]} | tojson(indent=2) }}",
    "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 'a' in 'cat' }}{{ 'x' not in ['y'] }}{{ 'role' in messages[0] }}"
    '{{ 1 == 1.0 }}{{ true == 1 }}{{ none == false }}',
    "{{ not true or true and false }}{{ (1 or 2) and '' }}|{{ '' or 'z' }}{{ not 'a' in 'abc' }}",
    "{{ 1 is odd }}{{ 2 is even }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is iterable }}"
    '{{ 1 is number }}{{ 3 is divisibleby 3 }}{{ 1 is eq(1) }}{{ x is none }}{{ none is none }}'
    '{{ true is true }}{{ 2 is in [1, 2] }}',
    "{{ 'yes' if messages else 'no' }}{{ 'only' if false }}{{ 1 if 0 else 2 if 0 else 3 }}",
    "{{ 'a' 'b' ~ 1 ~ none ~ true ~ 1.0 }}",
    '{{ "\\x41\\u00e9\\n\\t\\\\ \\\' \\101 \\q" }}',
    "{{ [3, 1] | first }}{{ [3, 1] | last }}{{ ['a', 'b'] | join('-') }}{{ ['a', 1] | join }}"
    "{{ 'abc' | list }}{{ 'abc' | reverse }}{{ 'abc' | first }}",
    "{{ messages | map(attribute='role') | join(', ') }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    "{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | list }}",
    "{{ '5' | int + 1 }}{{ 'x' | int }}{{ 3.7 | int }}{{ -3 | abs }}{{ 5 | string + '1' }}{{ '1.5' | string }}",
    "{% for k, v in {'b': 1, 'A': 2} | dictsort %}{{ k ~ v }}{% endfor %}{{ 'a\nb\n\nc' | indent(2) }}"
    "{{ 'a\nb' | indent(2, true) }}",
    "{{ dict(a=1).a }}{{ {'a': 1}['a'] }}{{ {'items': 1}['items'] }}{{ dict(a=1, b=2) | length }}",
    "{{ strftime_now('%Y') | length }}",
    "{{ raise_exception('stop: ' ~ 1) }}",
    '{{ undefined_thing.attribute }}',
    "{{ undefined_thing + 'a' }}",
    "{{ undefined_thing }}{{ undefined_thing ~ 'a' }}{% for x in undefined_thing %}x{% endfor %}"
    '{{ undefined_thing | length }}',
    "{{ 1 + 'a' }}",
    '{{ messages[99].role }}',
    '{{ messages[99] }}',
    '{{ 1 // 0 }}',
    "{{ 'a' < 1 }}",
    '{{ none | length }}',
    "{{ messages[0]['content'][0] }}{{ messages[-1].content[-1:] }}",
    "{{ (messages | first).role }}{{ (messages|last)['role'] }}",
    '{{ -1 | abs }}{{ - 2 ** 2 }}{{ +3 }}{{ 2 * 3 + 4 * -1 }}{{ 10 - 2 - 3 }}{{ 2 + 3 ~ 4 * 2 }}',
    '{% if a is not defined and not b is defined %}x{% elif true %}y{% else %}z{% endif %}',
    "{% if messages[0].role == 'user' and messages | length > 1 or false %}1{% else %}2{% endif %}",
    '{% for m in messages %}{% for n in messages %}{{ loop.index }}{% endfor %}{{ loop.index }}'
    '{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}',
    '{% generation %}{{ messages[0].content }}{% endgeneration %}\nx{% for m in messages %}'
    '\n  {% generation %}\n  {{ m.content }}\n  {% endgeneration %}\n{% endfor %}',
    '{{ loop is defined }}{% for i in range(2) %}{{ loop is defined }}{% endfor %}',
    "{{ 'a\\\nb' }}",
    "{{ [1,\n 2\n][1] }}\n{{ {'a':{'b':{'c':'deep'}}}.a.b['c'] }}",
    "{{ 'ab'.startswith('a') }}{{ 'ab'.endswith(('x', 'b')) }}{{ 'aXbX'.find('X') }}{{ 'aXbX'.count('X') }}",
    "{{ 'a\r\nb'.splitlines() }}{{ 'pre-x'.removeprefix('pre-') }}{{ 'x.py'.removesuffix('.py') }}"
    "{{ '-'.join(['a', 'b']) }}",
    '{{ 10 | float }}{{ 1e20 }}{{ 1e-7 }}{{ 0.1 + 0.2 }}{{ 100000000000000000000.0 }}{{ 1.0 }}{{ 123456.789 }}',
    '{{ true }}{{ True }}{{ none }}{{ None }}{{ false | int }}',
    '{% set messages = messages[1:] %}{{ messages | length }}',
]

FAMILIES = [LLAMA3, QWEN, THINKING, MISTRAL, ZEPHYR, GEMMA, PHI3, SMOL]

CONVERSATIONS = [
    [("user", "What is 2+2?"), ("assistant", "4")],
    [("system", " Be brief. "), ("user", "Name a colour."), ("assistant", "Red."), ("user", "Another?"),
     ("assistant", "  Blue.\n")],
    [("user", "Grüße 👋"), ("assistant", "<think>\nhm\n</think>\n\nHallo"), ("user", "{{ x }}")],
    [("assistant", "I begin."), ("user", "")],
]


def context_of(turns, **more):
    """What transformers gives a template."""
    return {"messages": [{"role": role, "content": content} for role, content in turns], "tools": None,
            "documents": None, "add_generation_prompt": False, "bos_token": "<s>", "eos_token": "</s>", **more}


class Random:
    """Random templates of random parts, most of which make sense."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def pick(self, *choices):
        return self.rng.choice(choices)

    def space(self):
        return self.pick("", "", " ", "\n", "  ", "\n  ", " \n", "\t", "x", "\n\n")

    def open(self, tag):
        return "{%" + self.pick("", "", "-", "+" if self.rng.random() < 0.3 else "") + f" {tag} " + \
            self.pick("", "", "-", "+" if self.rng.random() < 0.3 else "") + "%}"

    def text(self, depth):
        if depth <= 0:
            return self.pick("'a b'", "' x '", "m.content", "messages[0].content", "'é👋'", "eos_token", "\"\\n\"",
                             "''", "role", "s")
        inner, other = self.text(depth - 1), self.text(depth - 1)
        part = self.pick("1:", ":-1", "::-1", "0", "-3:", "1:3")
        return self.pick(
            f"({inner} | trim)", f"{inner}.strip()", f"({inner} + {other})", f"({inner} | upper)",
            f"({inner} ~ {self.number(depth - 1)})", f"({inner})[{part}]", f"({inner} | title)",
            f"({inner} if {self.flag(depth - 1)} else {other})", f"({inner} | tojson)", f"({inner} or {other})",
            f"({inner} | replace('a', '{self.pick('', 'bb', 'a')}'))", f"({inner} | default('q', true))",
            f"({inner}).split('{self.pick(' ', 'a', 'x')}')[{self.pick('0', '-1')}]",
            f"({inner}).rstrip('.\\n ')", f"({inner} * {self.pick('2', '0')})")

    def number(self, depth):
        if depth <= 0:
            return self.pick("1", "0", "-2", "3.5", "n", "messages | length", "7")
        inner = self.number(depth - 1)
        return self.pick(f"({inner} {self.pick('+', '-', '*')} {self.number(depth - 1)})",
                         f"({self.text(depth - 1)} | length)", f"({inner} {self.pick('//', '%')} 3)", f"{inner} | int",
                         f"-({inner})")

    def flag(self, depth):
        if depth <= 0:
            return self.pick("true", "false", "messages", "add_generation_prompt", "s is defined", "role == 'user'",
                             "unknown is defined", "tools is not none", "n is odd")
        inner, text, other = self.flag(depth - 1), self.text(depth - 1), self.text(depth - 1)
        return self.pick(f"({inner} {self.pick('and', 'or')} {self.flag(depth - 1)})", f"not {inner}",
                         f"({self.number(depth - 1)} {self.pick('<', '>=', '==', '!=')} {self.number(depth - 1)})",
                         f"{text} {self.pick('in', 'not in')} {other}", f"({text} == {other})")

    def body(self, depth, in_loop=False):
        count = self.rng.randint(1, 3)
        return "".join(self.space() + self.statement(depth, in_loop) for _ in range(count)) + self.space()

    def sometimes(self, chance, text):
        return text if self.rng.random() < chance else ""

    def branches(self, depth, in_loop):
        made = self.open("if " + self.flag(2)) + self.body(depth, in_loop)
        made += self.sometimes(0.3, self.open("elif " + self.flag(1)) + self.body(depth, in_loop))
        return made + self.sometimes(0.5, self.open("else") + self.body(depth, in_loop)) + self.open("endif")

    def loop(self, depth):
        target = self.pick("m in messages", "m in messages", "m in messages[1:]", "m in messages if m.role != 'user'",
                           "m in messages[::-1]")
        stop = self.open("if loop.index > 2") + self.open(self.pick("break", "continue")) + self.open("endif")
        shown = self.pick("{{ loop.index }}", "{{ m.role }}", "{{ loop.first ~ loop.last }}")
        return self.open("for " + target) + self.sometimes(0.3, stop) + self.body(depth, True) + shown + \
            self.open("endfor")

    def statement(self, depth, in_loop):
        kind = self.rng.randint(0, 10 if depth > 0 else 3)
        if kind <= 2:
            shown = self.pick(self.text(2), self.number(2), self.flag(1))
            return "{{" + self.pick("", "", "-") + " " + shown + " " + self.pick("", "", "-") + "}}"
        if kind == 3:
            return self.pick("{# note #}", "{#- note -#}", "{#\n#}\n")
        if kind == 4:
            values = ("s = " + self.text(2), "n = " + self.number(2), "role = " + self.text(1))
            return self.open("set " + self.pick(*values))
        if kind <= 6:
            return self.branches(depth - 1, in_loop)
        if kind <= 8:
            return self.loop(depth - 1)
        if kind == 9:
            return self.open("generation") + self.body(0) + self.open("endgeneration")
        return self.open("set s") + self.body(0) + self.open("endset")

    def template(self):
        return "{% set role = 'user' %}{% set s = 'start' %}{% set n = 5 %}{% set m = messages[0] %}" + self.body(3)


def rendered(template, context):
    """A line of the fixture."""
    row = {"template": template, "context": context}
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        blocks, spans = [], []
        with compiled.environment.activate_tracker(blocks, spans):
            for block in compiled.generate(**context):
                blocks.append(block)
        row["text"], row["generations"] = "".join(blocks), [list(span) for span in spans]
    except Exception as error:  # Jinja's errors, and Python's own from within a template.
        row["error"] = f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0][:100]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--random", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=os.path.join(HERE, "../../tests/golden/chat/templates.jsonl"))
    args = parser.parse_args()
    rows = []
    for template in FAMILIES:
        for turns in CONVERSATIONS:
            rows.append(rendered(template, context_of(turns)))
        rows.append(rendered(template, context_of(CONVERSATIONS[0][:1], add_generation_prompt=True)))
    tools = [{"name": "f", "parameters": {"x": [1, 2.5, None]}}]
    rows.append(rendered(LLAMA3, context_of(CONVERSATIONS[0], tools=tools)))
    rows.append(rendered(QWEN, context_of(CONVERSATIONS[1], tools=tools)))
    for template in PIECES:
        rows.append(rendered(template, context_of(CONVERSATIONS[1])))
    makes = Random(args.seed)
    for _ in range(args.random):
        rows.append(rendered(makes.template(), context_of(makes.pick(*CONVERSATIONS))))
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    with open(args.out, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    errors = sum("error" in row for row in rows)
    print(f"{len(rows)} templates, {errors} of them refused, in {args.out}", file=sys.stderr)


main()
