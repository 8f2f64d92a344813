"""The words that tell the network that the camera adapter is active."""

from __future__ import annotations

from typing import overload

TRIGGER = "camctl23x."


@overload
def with_trigger(prompt: str, trigger: str | None = TRIGGER) -> str: ...
@overload
def with_trigger(prompt: list[str], trigger: str | None = TRIGGER) -> list[str]: ...
@overload
def with_trigger(prompt: None, trigger: str | None = TRIGGER) -> None: ...
def with_trigger(
    prompt: str | list[str] | None, trigger: str | None = TRIGGER
) -> str | list[str] | None:
    """Put ``trigger`` in front of a prompt that does not begin with it yet.

    Camera adapters are trained with a trigger word; only the stages that run the adapter see it.
    The prompt's own spacing is kept, lists are treated element by element, None stays None, and an
    empty trigger changes nothing (Warp-as-History, section on prompts).
    """
    if prompt is None or not trigger:
        return prompt
    if isinstance(prompt, list):
        return [with_trigger(one, trigger) for one in prompt]
    if prompt.lstrip().startswith(trigger):
        return prompt
    return f"{trigger} {prompt}"
