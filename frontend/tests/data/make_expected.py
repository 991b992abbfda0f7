"""make_expected.py AUTOMODEL: what `tests/data.rs` compares with. Trains the two small tokenizers beside this file, then runs
NeMo Automodel's own formatting code (a git checkout that holds both forms) with transformers, and writes expected.json.
Needs torch, numpy, transformers, tokenizers."""
import functools, importlib.util, json, pathlib, subprocess, sys, tempfile, types

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
FORMS = {"head": "36044ad3d", "s25": "d79ccb94b"}
FOLDER = "nemo_automodel/components/datasets"
TEXT = [
    "The river Thames flows through London. What flows through London? The Thames.",
    "Context: Question: Answer: user assistant system",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "How many clips did Natalia sell altogether in April and May? 72 clips.",
    "Normandy is a region in France; the Normans came from Denmark, Iceland and Norway.",
    "The capital of France is Paris. The capital of Norway is Oslo, and that of Denmark is København.",
]
TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] | trim + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
GENERATION = (
    "{%- for message in messages %}\n  {{- '<|start|>' + message['role'] + '\n' }}\n  {%- if message['role'] == 'assistant' %}\n"
    "    {%- generation %}\n    {{- message['content'] + '<|end|>' }}\n    {%- endgeneration %}\n  {%- else %}\n"
    "    {{- message['content'] + '<|end|>' }}\n  {%- endif %}\n  {{- '\n' }}\n{%- endfor %}"
)
SQUAD = [
    {"id": "1", "context": "The river Thames flows through London.", "question": "What flows through London?",
     "answers": {"text": [" The Thames\n", "Thames"], "answer_start": [0, 4]}},
    {"id": "2", "context": "Normandy is a region in France.", "question": "In what country is Normandy?",
     "answers": {"text": ["France"], "answer_start": [24]}},
    {"id": "3", "context": "København lies in Denmark — “øl” 日本.", "question": "Where does København lie?",
     "answers": {"text": ["in Denmark"], "answer_start": [15]}},
]
UNANSWERED = {"id": "4", "context": "Oslo.", "question": "Who?", "answers": {"text": [], "answer_start": []}}
COLUMNS = [
    {"prompt": "How many clips did Natalia sell?", "note": "Natalia sold clips.", "reply": "72 clips."},
    {"prompt": "What flows through London?", "note": None, "reply": "The Thames."},
]


def train(folder, specials, post):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, initial_alphabet=sorted(alphabet)))
    if post:
        ids = [(token, tokenizer.token_to_id(token)) for token in specials]
        tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=ids)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_tokenizers():
    chat, plain = HERE / "tokenizer", HERE / "tokenizer_plain"
    train(chat, ["<|begin|>", "<|start|>", "<|end|>", "<|pad|>"], False)
    config = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "model_max_length": 1e30,
              "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (chat / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    train(plain, ["<|begin|>", "<|end|>"], True)
    config = {"add_bos_token": True, "bos_token": {"__type": "AddedToken", "content": "<|begin|>", "special": True}, "eos_token": "<|end|>", "model_max_length": 48,
              "tokenizer_class": "PreTrainedTokenizerFast"}
    (plain / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def load(checkout, commit, name):
    """A module of Automodel at a commit, with the packages that it would import replaced by empty ones."""
    text = subprocess.check_output(["git", "-C", checkout, "show", f"{commit}:{FOLDER}/llm/{name}.py"], text=True)
    path = pathlib.Path(tempfile.mkdtemp()) / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def modules(checkout, form):
    stub = types.ModuleType("datasets")
    stub.load_dataset = stub.VerificationMode = None
    stub.DatasetDict = type("DatasetDict", (), {})
    stub.Dataset = type("Dataset", (), {"from_dict": staticmethod(lambda columns: columns)})
    sys.modules["datasets"] = stub
    for parent in ["nemo_automodel", "nemo_automodel.components", FOLDER.replace("/", "."), FOLDER.replace("/", ".") + ".llm"]:
        sys.modules[parent] = types.ModuleType(parent)
    lazy = types.ModuleType("lazy")
    lazy.LazyMappedDataset = None
    sys.modules["nemo_automodel.components.datasets.lazy_mapped_dataset"] = lazy
    commit = FORMS[form]
    formatting = load(checkout, commit, "formatting_utils")
    sys.modules["nemo_automodel.components.datasets.llm.formatting_utils"] = formatting
    names = ["squad", "column_mapped_text_instruction_dataset", "packed_sequence"]
    return [formatting, *(load(checkout, commit, name) for name in names)]


def sample(example):
    content = len(example["input_ids"]) if "content" not in example else example["content"]
    return {"tokens": example["input_ids"], "labels": example["labels"], "content": content}


def pads(formatting, tokenizer):
    if tokenizer.pad_token_id is None and hasattr(formatting, "_get_right_trailing_pad_mask"):
        tokenizer.pad_token_id = 0  # what NeMoAutoTokenizer does
    return formatting._add_pad_token(tokenizer) or tokenizer.eos_token_id


def cases(checkout, form):
    formatting, squad, columns, packing = modules(checkout, form)
    plain, chat = (AutoTokenizer.from_pretrained(HERE / name) for name in ["tokenizer_plain", "tokenizer"])
    if form == "head":
        with_bos = AutoTokenizer.from_pretrained(HERE / "tokenizer_plain")
        with_bos.add_bos_token = True
    else:  # transformers 4 returned a list of ids
        chat.apply_chat_template = functools.partial(chat.apply_chat_template, return_dict=False)
    out = {}

    def squad_rows(name, tokenizer, rows, **options):
        ids = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=pads(formatting, tokenizer))
        if form == "head":
            options = {"padding": False, "truncation": False, **options}
        function = squad._formatting_prompts_func_with_chat_template if tokenizer.chat_template else squad._formatting_prompts_func
        out[name] = [sample(function(row, tokenizer, **ids, **options)) for row in rows]

    def column_rows(name, tokenizer, template, answer_only=True):
        dataset = object.__new__(columns.ColumnMappedTextInstructionDataset)
        vars(dataset).update(tokenizer=tokenizer, answer_only_loss_mask=answer_only, seq_length=None, padding="do_not_pad",
                             truncation="do_not_truncate", use_hf_chat_template=template, start_of_turn_token=None)
        rows = [{"context": row["note"], "question": row["prompt"], "answer": row["reply"]} for row in COLUMNS]
        out[name] = [sample(dataset._apply_tokenizer(row)) for row in rows]

    squad_rows("squad_plain", plain, SQUAD + [UNANSWERED])
    squad_rows("squad_chat", chat, SQUAD)
    column_rows("columns_plain", plain, False)
    column_rows("columns_all", plain, False, answer_only=False)
    if form == "s25":
        squad_rows("squad_padded", plain, SQUAD, seq_length=80)
        return out
    squad_rows("squad_bos", with_bos, SQUAD)
    squad_rows("squad_cut", plain, SQUAD, seq_length=40, truncation=True)
    squad_rows("squad_cut_to_model", plain, SQUAD, truncation=True)
    squad_rows("squad_padded", plain, SQUAD, seq_length=80, padding="max_length")
    squad_rows("squad_chat_cut", chat, SQUAD, seq_length=40, truncation=True)
    column_rows("columns_chat", chat, True)
    column_rows("columns_chat_all", chat, True, answer_only=False)
    chat.chat_template = GENERATION
    squad_rows("squad_generation", chat, SQUAD)
    squad_rows("squad_generation_cut", chat, SQUAD, seq_length=40, truncation=True)
    for name, size, most in [("packed", 100, None), ("packed_two", 60, 2)]:
        dataset = [{"input_ids": list(s["tokens"]), "labels": list(s["labels"])} for s in out["squad_plain"] * 2]
        packs = packing.pack_dataset(dataset, "train", size, max_packs=most, padding_idx=0)
        out[name] = [
            {key: packs[source][i].tolist() for key, source in [("tokens", "input_ids"), ("labels", "labels"), ("positions", "position_ids"), ("lengths", "seq_lens")]}
            for i in range(len(packs["input_ids"]))
        ]
    return out


def chats():
    tokenizer = AutoTokenizer.from_pretrained(HERE / "tokenizer")
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The Thames."}]
    generation = tokenizer.apply_chat_template(messages, chat_template=GENERATION, return_assistant_tokens_mask=True, return_dict=True)
    texts = ["The Thames", " in  Oslo\n", "<|end|>x", "日本 “øl”", ""]
    plain = AutoTokenizer.from_pretrained(HERE / "tokenizer_plain")
    return {
        "prompt": tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"],
        "generation": {"tokens": generation["input_ids"], "mask": generation["assistant_masks"]},
        "texts": [{"text": t, "plain": plain(t, add_special_tokens=False)["input_ids"], "special": plain(t)["input_ids"],
                   "decoded": plain.decode(plain(t)["input_ids"]), "skipped": plain.decode(plain(t)["input_ids"], skip_special_tokens=True)} for t in texts],
    }


if __name__ == "__main__":
    write_tokenizers()
    rows = {"squad": SQUAD, "unanswered": UNANSWERED, "columns": COLUMNS, "generation_template": GENERATION}
    expected = {"rows": rows, "chats": chats(), **{form: cases(sys.argv[1], form) for form in FORMS}}
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, separators=(",", ":")) + "\n")
