#include "llmc/io/chat/families.h"

#include <algorithm>
#include <iterator>

namespace llmc {

namespace {

constexpr const char* kChatMl = R"({%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}
{%- generation %}{{- m.content + '<|im_end|>' }}{% endgeneration %}
{{- '\n' }}
{%- else %}
{{- m.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %})";

constexpr const char* kQwen = R"({%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}
{%- generation %}{{- m.content + '<|im_end|>' }}{% endgeneration %}
{{- '\n' }}
{%- else %}
{{- m.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %})";

constexpr const char* kLlama2 = R"({%- set system = none %}
{%- set turns = messages %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}
{%- set turns = messages[1:] %}
{%- endif %}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('turns must be of the user and the assistant, one after the other') }}
{%- endif %}
{%- if m.role == 'user' %}
{%- set text = m.content %}
{%- if loop.first and system is not none %}
{%- set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m.content %}
{%- endif %}
{{- bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
{%- else %}
{{- ' ' }}
{%- generation %}{{- m.content.strip() + ' ' + eos_token }}{% endgeneration %}
{%- endif %}
{%- endfor %})";

constexpr const char* kLlama3 = R"({{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
{%- if m.role == 'assistant' %}
{%- generation %}{{- (m.content | trim) + '<|eot_id|>' }}{% endgeneration %}
{%- else %}
{{- (m.content | trim) + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";

constexpr const char* kMistral = R"({%- set system = none %}
{%- set turns = messages %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}
{%- set turns = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('turns must be of the user and the assistant, one after the other') }}
{%- endif %}
{%- if m.role == 'user' %}
{%- set text = m.content %}
{%- if loop.first and system is not none %}
{%- set text = system + '\n\n' + m.content %}
{%- endif %}
{{- '[INST] ' + text + ' [/INST]' }}
{%- else %}
{%- generation %}{{- m.content + eos_token }}{% endgeneration %}
{%- endif %}
{%- endfor %})";

constexpr const char* kZephyr = R"({%- for m in messages %}
{{- '<|' + m.role + '|>\n' }}
{%- if m.role == 'assistant' %}
{%- generation %}{{- m.content + eos_token }}{% endgeneration %}
{{- '\n' }}
{%- else %}
{{- m.content + eos_token + '\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{% endif %})";

}  // namespace

const ChatFamily kChatFamilies[6] = {
    {"chatml", "<s>", "<|im_end|>", "", kChatMl},
    {"llama2", "<s>", "</s>", "<s>", kLlama2},
    {"llama3", "<|begin_of_text|>", "<|eot_id|>", "<|begin_of_text|>", kLlama3},
    {"mistral", "<s>", "</s>", "<s>", kMistral},
    {"zephyr", "<s>", "</s>", "", kZephyr},
    {"qwen", "", "<|im_end|>", "", kQwen},
};

const ChatFamily* find_chat_family(const std::string& name) {
    const auto* const found = std::find_if(std::begin(kChatFamilies), std::end(kChatFamilies),
                                           [&](const ChatFamily& family) { return name == family.name; });
    return found == std::end(kChatFamilies) ? nullptr : found;
}

}  // namespace llmc
