rule match_lenses:
    input:
        survey="results/survey.json",
        code=code("dark_halo_scope.catalogue.lenses", "spark"),
    output:
        "results/catalogue/lenses.json",
    log:
        "logs/match_lenses.log",
    benchmark:
        "benchmarks/match_lenses.tsv"
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=settings("survey", "lenses"),
    message:
        "Reading and merging the lists of known and candidate lenses"
    shell:
        "exec python -m dark_halo_scope.catalogue.lenses --survey {input.survey}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule select_parent_sample:
    input:
        survey="results/survey.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.catalogue.parent", "spark"),
    output:
        "results/catalogue/parent.json",
    log:
        "logs/select_parent_sample.log",
    benchmark:
        "benchmarks/select_parent_sample.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=240,
    params:
        settings=settings("survey", "parent"),
    message:
        "Selecting the parent sample of luminous red galaxies (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.catalogue.parent --"
        " --survey {input.survey} --lenses {input.lenses}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule measure_sources:
    input:
        survey="results/survey.json",
        code=code("dark_halo_scope.injection.measure_sources", "spark"),
    output:
        "results/catalogue/sources.json",
    log:
        "logs/measure_sources.log",
    benchmark:
        "benchmarks/measure_sources.tsv"
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        settings=settings("survey", "sources"),
    message:
        "Measuring every galaxy of the source bank"
    shell:
        "exec python -m dark_halo_scope.injection.measure_sources --survey {input.survey} --processes {threads}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule select_confusers:
    input:
        survey="results/survey.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.catalogue.select_confusers", "spark"),
    output:
        "results/catalogue/confusers.json",
    log:
        "logs/select_confusers.log",
    benchmark:
        "benchmarks/select_confusers.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=240,
    params:
        settings=settings("survey", "confusers"),
    message:
        "Selecting galaxies that look like lenses and are none (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark}"
        " dark_halo_scope.catalogue.select_confusers --"
        " --survey {input.survey} --lenses {input.lenses}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
