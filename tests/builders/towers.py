"""One tiny tower of every kind, stored as its makers store it, with transformers' own reading as a reference."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from meddiff.models.weights.sources import Source

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WIDTH = 16
LENGTH = 24
#: Thirty pieces: some words are whole, most fall into several.
PIECES = tuple(
    [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "card",
        "##io",
        "##mega",
        "##ly",
        "left",
        "right",
        "pleural",
        "eff",
        "##usion",
        "##s",
        "edema",
        "-",
        ".",
        ",",
        "1",
        "##2",
        "no",
        "small",
        "the",
        "heart",
        "is",
        "u",
        "##ber",
        "##o",
        "cm",
    ]
)
#: What the alignment of words has to bear: pieces, hyphens, capitals, numbers, umlauts, glued and lonely punctuation.
TEXTS = (
    "Cardiomegaly.",
    "No left-right pleural effusions",
    "CARDIOMEGALY, edema; 12 cm  .",
    "\u00dcber 1.2 cm \u00d6dem , Small cardiomegaly",
    "effusion effusion cardio-mega-effusions",
    "unheardof words",
    "",
)


@dataclass(frozen=True)
class Kind:
    """A kind of tower.

    Attributes:
        source: what the suite builds it from.
        reference: transformers' own tower and tokenizer for the same files; None where there is none.
        dropout: whether it draws while it is trained.
    """

    source: Source
    reference: "Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]] | None" = None
    dropout: bool = False


def drawn_clip(folder: Path) -> Kind:
    """The suite's own, drawn at random."""
    return Kind({"width": WIDTH, "heads": 2, "layers": 2, "embedding_std": 0.5, "position_std": 0.1})


def padded_with_end(folder: Path) -> Kind:
    """Of Stable Diffusion 1: the end token pads, and another activation."""
    return Kind({"width": WIDTH, "heads": 2, "layers": 2, "act": "quick_gelu", "pad_id": 49407, "embedding_std": 0.5})


def clip_of_few_words(folder: Path) -> Kind:
    """A CLIP with a vocabulary of its own, in a pipeline's two folders."""
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    tokenizer = _byte_pairs(["<|startoftext|>", "<|endoftext|>"])
    size = tokenizer.get_vocab_size()
    torch.manual_seed(1)
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_attention_heads=2,
            num_hidden_layers=2,
            max_position_embeddings=LENGTH,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
        )
    )
    model.save_pretrained(folder / "text_encoder")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **special).save_pretrained(
        folder / "tokenizer"
    )
    return Kind(str(folder), lambda: (model.eval(), _read(folder / "tokenizer")))


def bert(folder: Path) -> Kind:
    """A BERT as published: a model with heads, a vocabulary and no ``tokenizer.json``."""
    from transformers import BertForMaskedLM, BertTokenizer

    torch.manual_seed(2)
    model = BertForMaskedLM(_bert_config())
    model.save_pretrained(folder)
    word_piece_files(folder)
    return Kind(
        {"checkpoint": str(folder), "max_length": LENGTH},
        lambda: (model.bert.eval(), BertTokenizer.from_pretrained(folder)),
        dropout=True,
    )


def cxr_bert(folder: Path) -> Kind:
    """As CXR-BERT and BioViL-T: a kind of their own that comes with code, pickled weights; the U-Net sees no padding."""
    from transformers import BertModel, BertTokenizer

    torch.manual_seed(3)
    model = BertModel(_bert_config(), add_pooling_layer=False)
    model.save_pretrained(folder)
    state = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    state |= {
        "cls_projection_head.dense_to_hidden.weight": torch.zeros(8, WIDTH),
        "bert.pooler.dense.bias": torch.zeros(1),
    }
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    reference = folder / "reference"
    model.save_pretrained(reference)
    about = {"model_type": "cxr-bert", "architectures": ["CXRBertModel"], "projection_size": 8}
    code = {"auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"}}
    (folder / "config.json").write_text(json.dumps({**config, **about, **code}))
    word_piece_files(folder)
    (folder / "modeling_cxrbert.py").write_text("raise RuntimeError('code of a model was run')\n")
    return Kind(
        {"checkpoint": str(folder), "max_length": LENGTH, "attention_mask": True},
        lambda: (model.eval(), BertTokenizer(vocab=str(folder / "vocab.txt"))),
        dropout=True,
    )


def roberta(folder: Path) -> Kind:
    """RoBERTa (RadBERT is one): byte pairs, another padding, positions that begin late."""
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    tokenizer = _byte_pairs(["<s>", "<pad>", "</s>"])
    torch.manual_seed(4)
    model = RobertaModel(
        RobertaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=WIDTH,
            num_attention_heads=2,
            num_hidden_layers=2,
            intermediate_size=32,
            max_position_embeddings=LENGTH + tokenizer.token_to_id("<pad>") + 1,
            pad_token_id=tokenizer.token_to_id("<pad>"),
        )
    )
    model.save_pretrained(folder)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **special).save_pretrained(folder)
    return Kind(str(folder), lambda: (model.eval(), _read(folder)), dropout=True)


def t5(folder: Path) -> Kind:
    """The encoder of a whole T5: no start token, tied tables, relative positions."""
    from transformers import T5Config, T5ForConditionalGeneration

    size = unigram_files(folder)
    torch.manual_seed(5)
    config = T5Config(vocab_size=size, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    return Kind(
        {"checkpoint": str(folder), "max_length": 40},
        lambda: (model.encoder.eval(), _read(folder)),
        dropout=True,
    )


def unigram_files(folder: Path) -> int:
    """T5's kind of vocabulary as ``tokenizer.json``; its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["▁", "▁card", "io", "mega", "ly", "▁left", "-", "right", "▁pleural", "▁eff", "usion"]
    letters = sorted({letter for text in TEXTS for letter in text.strip()} - {" "})
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((one, -2.0) for one in pieces)]
    scores += [(letter, -6.0) for letter in letters if letter not in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
    return len(scores)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "clip": drawn_clip,
    "clip_sd1": padded_with_end,
    "clip_few": clip_of_few_words,
    "bert": bert,
    "cxr-bert": cxr_bert,
    "roberta": roberta,
    "t5": t5,
}


def _bert_config() -> object:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(PIECES),
        hidden_size=WIDTH,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )


def word_piece_files(folder: Path) -> None:
    """BERT's kind of vocabulary, as CXR-BERT has it: no ``tokenizer.json``."""
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    settings = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _byte_pairs(special: list[str]) -> "Tokenizer":
    """Byte-level pairs learned from the texts; the first and the last of ``special`` stand around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(special)
    first, last = special[0], special[-1]
    ids = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)
    return tokenizer


def _read(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)
